//! Numbers of rows and columns that lie equally far apart, and the pixels of a patch.
//!
//! Transforms read and write up to 36 places with each step, whose lengths would be compared as often as anything is
//! computed: here they are compared once for all steps.

#![allow(
    unsafe_code,
    reason = "unchecked access to what was checked before, in the innermost loops"
)]

use std::{marker::PhantomData, ops::Range};

use super::{CHANNELS, OUTSIDE, numbers::Element};
use crate::isa::{Isa, LANES};

/// `ROWS × COLUMNS` places of numbers, each as long as all others.
#[derive(Clone, Copy)]
pub(super) struct Spaced<'a, const ROWS: usize, const COLUMNS: usize> {
    at: *const f32,
    steps: [usize; 2],
    length: usize,
    values: PhantomData<&'a [f32]>,
}

impl<'a, const ROWS: usize, const COLUMNS: usize> Spaced<'a, ROWS, COLUMNS> {
    /// The places of `length` numbers whose rows and columns are `steps` numbers apart.
    pub(super) fn new(values: &'a [f32], steps: [usize; 2], length: usize) -> Self {
        assert!(values.len() >= end([ROWS, COLUMNS], steps, length), "places of numbers");
        Self { at: values.as_ptr(), steps, length, values: PhantomData }
    }

    /// The sixteen numbers from `start` on of a place.
    #[inline(always)]
    pub(super) fn load<I: Isa>(&self, isa: I, place: [usize; 2], start: usize) -> I::V {
        // SAFETY: the numbers were checked to be there, and nobody writes while they are borrowed.
        unsafe { isa.load(&*self.find(place, start)) }
    }

    /// Where sixteen numbers of a place are. Places are constants where loops are unrolled, and comparing them is nothing
    /// then.
    #[inline(always)]
    fn find(&self, [row, column]: [usize; 2], start: usize) -> *const [f32; LANES] {
        assert!(row < ROWS && column < COLUMNS, "a place");
        assert!(start + LANES <= self.length, "numbers of a place");
        let offset = row * self.steps[0] + column * self.steps[1] + start;
        self.at.wrapping_add(offset).cast()
    }
}

/// [`Spaced`] to be written.
pub(super) struct SpacedMut<'a, const ROWS: usize, const COLUMNS: usize> {
    written: Spaced<'a, ROWS, COLUMNS>,
    alone: PhantomData<&'a mut [f32]>,
}

impl<'a, const ROWS: usize, const COLUMNS: usize> SpacedMut<'a, ROWS, COLUMNS> {
    /// The places of `length` numbers whose rows and columns are `steps` numbers apart.
    pub(super) fn new(values: &'a mut [f32], steps: [usize; 2], length: usize) -> Self {
        assert!(values.len() >= end([ROWS, COLUMNS], steps, length), "places of numbers");
        let at = values.as_mut_ptr().cast_const();
        Self { written: Spaced { at, steps, length, values: PhantomData }, alone: PhantomData }
    }

    /// The sixteen numbers from `start` on of a place.
    #[inline(always)]
    pub(super) fn load<I: Isa>(&self, isa: I, place: [usize; 2], start: usize) -> I::V {
        self.written.load(isa, place, start)
    }

    /// Write sixteen numbers from `start` on of a place.
    #[inline(always)]
    pub(super) fn store<I: Isa>(&mut self, isa: I, v: I::V, place: [usize; 2], start: usize) {
        let at = self.written.find(place, start).cast_mut();
        // SAFETY: the numbers were checked to be there, and were given to be written; no one else has them.
        unsafe { isa.store(v, &mut *at) }
    }
}

/// Where the last place ends.
fn end([rows, columns]: [usize; 2], steps: [usize; 2], length: usize) -> usize {
    let last = (rows - 1).checked_mul(steps[0]).zip((columns - 1).checked_mul(steps[1]));
    let last = last.and_then(|(row, column)| row.checked_add(column));
    last.and_then(|last| last.checked_add(length)).expect("places of numbers")
}

/// Some channels of the pixels of a patch.
pub(super) struct Pixels<'a, T, const P: usize> {
    at: [[*const T; P]; P],
    length: usize,
    values: PhantomData<&'a [T]>,
}

impl<'a, T: Copy, const P: usize> Pixels<'a, T, P> {
    /// What patches read at `places` of an image; `nothing` outside it.
    #[inline(always)]
    pub(super) fn new(
        (values, nothing): (&'a [T], &'a [T; CHANNELS]),
        places: &[u32],
        (stride, channels): (usize, &Range<usize>),
    ) -> Self {
        let length = channels.len();
        let nothing = nothing[..length].as_ptr();
        let mut at = [[nothing; P]; P];
        for (at, &place) in at.as_flattened_mut().iter_mut().zip(places) {
            if place != OUTSIDE {
                *at = values[place as usize * stride + channels.start..][..length].as_ptr();
            }
        }
        Self { at, length, values: PhantomData }
    }

    /// The lanes of a pixel from channel `start` on, counted from the first that is read.
    #[inline(always)]
    pub(super) fn load<I: Isa>(&self, isa: I, [i, j]: [usize; 2], start: usize) -> I::V
    where
        T: Element<I>,
    {
        let count = LANES * T::PER_LANE;
        assert!(start + count <= self.length, "channels of a pixel");
        // SAFETY: each pixel was checked to have this many channels.
        T::load(isa, unsafe { std::slice::from_raw_parts(self.at[i][j].add(start), count) })
    }
}
