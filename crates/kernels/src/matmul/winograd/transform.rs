//! The transforms of minimal filtering: of patches, of taps, and of sums back into results.

use std::ops::Range;

use super::{
    OUTSIDE, Patches, Places, apart,
    numbers::{Element, Numbers},
};
use crate::{
    format::PANEL,
    isa::{Apart, Isa, LANES},
    matmul::chunk::Panel,
};

/// An array of what an expression is for each number, which is a constant in it: an array that a loop fills lies in memory,
/// one of constant places in registers, and a closure may be left out of line, where every intrinsic is a call.
macro_rules! each {
    ($i:ident in $($n:literal)+ => $x:expr) => {
        [$({
            let $i = $n;
            $x
        }),+]
    };
}

/// `Bᵀ d B` of some channels of patches, `[points, patches, channels]`, outside the image of `nothing`.
#[inline(always)]
pub(super) fn input<I: Isa, N: Numbers<I>, T: Element<I>>(
    (isa, numbers): (I, N),
    (values, nothing): (&[T], T),
    patches: &Patches<'_>,
    to: &mut [f32],
) {
    isa.apart(Input { numbers, values, nothing, patches, to });
}

/// `G g Gᵀ` of some channels of a panel, `[points, channels, width]`.
#[inline(always)]
pub(super) fn weights<I: Isa, N: Numbers<I>>(
    (isa, numbers): (I, N),
    (panel, channels): (&Panel<'_>, Range<usize>),
    widened: &mut [f32],
    to: &mut [f32],
) {
    let step = widened.len() / (9 * PANEL) * N::PER_LANE;
    let lanes = |channels: usize| channels / N::PER_LANE * panel.width;
    let point = apart(lanes(channels.len()));
    for start in channels.clone().step_by(step) {
        let some = start..channels.end.min(start + step);
        let (at, length) = (lanes(start - channels.start), lanes(some.len()));
        let taps = &mut widened[..9 * length];
        numbers.widen(isa, (panel, some), taps);
        isa.apart(Weights { numbers, taps, length, to: &mut to[at..], point });
    }
}

/// `Aᵀ m A` of patch `patch` of sums `[points, patches, width]`, whose points are `point` numbers apart: its results go to
/// the first two pixels of two lines of `to`, which are `line` numbers apart.
#[inline(always)]
pub(super) fn output<I: Isa, N: Numbers<I>>(
    (isa, numbers): (I, N),
    (sums, point): (&[f32], usize),
    (patch, width): (usize, usize),
    (to, line): (&mut [f32], usize),
) {
    isa.apart(Results { numbers, sums: &sums[patch * width..], point, width, to, line });
}

/// Transforms what patches read.
struct Input<'a, N, T> {
    numbers: N,
    values: &'a [T],
    nothing: T,
    patches: &'a Patches<'a>,
    to: &'a mut [f32],
}

impl<I: Isa, N: Numbers<I>, T: Element<I>> Apart<I> for Input<'_, N, T> {
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { numbers, values, nothing, patches, to } = self;
        let Patches { places, stride, channels } = patches;
        let nothing = [nothing; 2 * LANES];
        let lanes = channels.len() / N::PER_LANE;
        let point = apart(places.len() * lanes);
        for (number, places) in places.iter().enumerate() {
            let to = (&mut to[number * lanes..], point);
            patch((isa, numbers), (values, &nothing), places, (*stride, channels), to);
        }
    }
}

/// Transform one patch.
#[inline(always)]
fn patch<I: Isa, N: Numbers<I>, T: Element<I>>(
    (isa, numbers): (I, N),
    (values, nothing): (&[T], &[T]),
    places: &Places,
    (stride, channels): (usize, &Range<usize>),
    (to, point): (&mut [f32], usize),
) {
    let step = LANES * N::PER_LANE;
    for (at, channel) in (0..).step_by(LANES).zip(channels.clone().step_by(step)) {
        let columns = each!(j in 0 1 2 3 => numbers.difference(isa, each!(i in 0 1 2 3 => {
            let place = places[4 * i + j];
            let start = place as usize * stride + channel;
            T::load(isa, if place == OUTSIDE { nothing } else { &values[start..] })
        })));
        each!(i in 0 1 2 3 => {
            let row = numbers.difference(isa, each!(j in 0 1 2 3 => columns[j][i]));
            each!(j in 0 1 2 3 => isa.write(row[j], &mut to[(4 * i + j) * point + at..][..LANES]));
        });
    }
}

/// Transforms taps.
struct Weights<'a, N> {
    numbers: N,
    /// `[9, length]`.
    taps: &'a [f32],
    length: usize,
    /// `[points, length]`, `point` apart.
    to: &'a mut [f32],
    point: usize,
}

impl<I: Isa, N: Numbers<I>> Apart<I> for Weights<'_, N> {
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { numbers, taps, length, to, point } = self;
        for at in (0..length).step_by(LANES) {
            let columns = each!(j in 0 1 2 => numbers.mean(isa, each!(i in 0 1 2 =>
                isa.read(&taps[(3 * i + j) * length + at..][..LANES]))));
            each!(i in 0 1 2 3 => {
                let row = numbers.mean(isa, each!(j in 0 1 2 => columns[j][i]));
                each!(j in 0 1 2 3 => isa.write(row[j], &mut to[(4 * i + j) * point + at..][..LANES]));
            });
        }
    }
}

/// Transforms the sums of a patch into its results.
struct Results<'a, N> {
    numbers: N,
    /// `[points, width]`, `point` apart.
    sums: &'a [f32],
    point: usize,
    width: usize,
    /// Two lines of two pixels.
    to: &'a mut [f32],
    line: usize,
}

impl<I: Isa, N: Numbers<I>> Apart<I> for Results<'_, N> {
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { numbers, sums, point, width, to, line } = self;
        for at in (0..width).step_by(LANES) {
            let columns = each!(j in 0 1 2 3 => numbers.total(isa, each!(i in 0 1 2 3 =>
                isa.read(&sums[(4 * i + j) * point + at..][..LANES]))));
            each!(i in 0 1 => {
                let row = numbers.total(isa, each!(j in 0 1 2 3 => columns[j][i]));
                each!(j in 0 1 => {
                    let result = numbers.result(isa, row[j], at);
                    isa.write(result, &mut to[i * line + j * width + at..][..LANES]);
                });
            });
        }
    }
}
