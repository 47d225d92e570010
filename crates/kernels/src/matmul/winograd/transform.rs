//! The transforms of minimal filtering: of patches, of taps, and of sums back into results.

use std::ops::Range;

use super::{
    CHANNELS, Distances, Patches,
    numbers::{Element, Numbers},
    spaced::{Pixels, Spaced, SpacedMut},
};
use crate::{
    format::PANEL,
    isa::{Apart, Isa, LANES},
    matmul::chunk::Panel,
};

/// Repeat a block for each number below a constant, which is a constant in it too: an array that a loop fills lies in
/// memory, one of constant places in registers, and a closure may be left out of line, where every intrinsic is a call.
macro_rules! unrolled {
    ($i:ident < $n:ident $body:block) => {
        unrolled!($i < $n $body 0 1 2 3 4 5)
    };
    ($i:ident < $n:ident $body:block $($number:literal)+) => {
        $(if $n > $number {
            let $i = $number;
            $body
        })+
    };
}

/// Taps of a side.
const TAPS: usize = 3;

/// `Bᵀ d B` of some channels of patches, `[points, patches, channels]`, outside the image of `nothing`.
#[inline(always)]
pub(super) fn input<I: Isa, N: Numbers<I, P, R>, T: Element<I>, const P: usize, const R: usize>(
    (isa, numbers): (I, N),
    (values, nothing): (&[T], T),
    patches: &Patches<'_>,
    to: &mut [f32],
) {
    isa.apart(Input::<N, T, P, R> { numbers, values, nothing, patches, to });
}

/// `G g Gᵀ` of some channels of a panel, `[points, channels, width]`.
#[inline(always)]
pub(super) fn weights<I: Isa, N: Numbers<I, P, R>, const P: usize, const R: usize>(
    (isa, numbers): (I, N),
    (panel, channels): (&Panel<'_>, Range<usize>),
    widened: &mut [f32],
    to: &mut [f32],
) {
    let step = widened.len() / (9 * PANEL) * N::PER_LANE;
    let lanes = |channels: usize| channels / N::PER_LANE * panel.width;
    for start in channels.clone().step_by(step) {
        let some = start..channels.end.min(start + step);
        let (at, length) = (lanes(start - channels.start), lanes(some.len()));
        let taps = &mut widened[..9 * length];
        numbers.widen(isa, (panel, some), taps);
        isa.apart(Weights::<N, P, R> { numbers, taps, length, to: &mut to[at..] });
    }
}

/// `Aᵀ m A` of patch `patch` of sums `[points, patches, width]`: its results go to the first pixels of the lines of `to`,
/// which are `line` numbers apart, or are added to what is there.
#[inline(always)]
pub(super) fn output<I: Isa, N: Numbers<I, P, R>, const P: usize, const R: usize>(
    (isa, numbers): (I, N),
    sums: &[f32],
    (patch, width): (usize, usize),
    (to, line, adds): (&mut [f32], usize, bool),
) {
    let sums = &sums[patch * width..];
    isa.apart(Results::<N, P, R> { numbers, sums, width, to, line, adds });
}

/// Transforms what patches read.
struct Input<'a, N, T, const P: usize, const R: usize> {
    numbers: N,
    values: &'a [T],
    nothing: T,
    patches: &'a Patches<'a>,
    to: &'a mut [f32],
}

impl<I: Isa, N: Numbers<I, P, R>, T: Element<I>, const P: usize, const R: usize> Apart<I>
    for Input<'_, N, T, P, R>
{
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { numbers, values, nothing, patches, to } = self;
        let Patches { places, stride, channels } = patches;
        let nothing = [nothing; CHANNELS];
        let lanes = channels.len() / N::PER_LANE;
        let point = const { Distances::new(N::PATCHES, N::PER_LANE).patches };
        for (number, places) in places.chunks_exact(P * P).enumerate() {
            let pixels = Pixels::new((values, &nothing), places, (*stride, channels));
            let to = SpacedMut::new(&mut to[number * lanes..], [P * point, point], lanes);
            patch((isa, numbers), &pixels, to, lanes);
        }
    }
}

/// Transform one patch.
#[inline(always)]
fn patch<I: Isa, N: Numbers<I, P, R>, T: Element<I>, const P: usize, const R: usize>(
    (isa, numbers): (I, N),
    pixels: &Pixels<'_, T, P>,
    mut to: SpacedMut<'_, P, P>,
    lanes: usize,
) {
    let zero = isa.splat(0.0);
    for at in (0..lanes).step_by(LANES) {
        let mut columns = [[zero; P]; P];
        unrolled!(j < P {
            let mut column = [zero; P];
            unrolled!(i < P { column[i] = pixels.load(isa, [i, j], at * N::PER_LANE); });
            columns[j] = numbers.difference(isa, column);
        });
        unrolled!(i < P {
            let mut row = [zero; P];
            unrolled!(j < P { row[j] = columns[j][i]; });
            let row = numbers.difference(isa, row);
            unrolled!(j < P { to.store(isa, row[j], [i, j], at); });
        });
    }
}

/// Transforms taps.
struct Weights<'a, N, const P: usize, const R: usize> {
    numbers: N,
    /// `[9, length]`.
    taps: &'a [f32],
    length: usize,
    /// `[points, length]`.
    to: &'a mut [f32],
}

impl<I: Isa, N: Numbers<I, P, R>, const P: usize, const R: usize> Apart<I>
    for Weights<'_, N, P, R>
{
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { numbers, taps, length, to } = self;
        let point = const { Distances::new(N::PATCHES, N::PER_LANE).taps };
        let taps = Spaced::<TAPS, TAPS>::new(taps, [TAPS * length, length], length);
        let mut to = SpacedMut::<P, P>::new(to, [P * point, point], length);
        let zero = isa.splat(0.0);
        for at in (0..length).step_by(LANES) {
            let mut columns = [[zero; P]; TAPS];
            unrolled!(j < TAPS {
                let mut column = [zero; TAPS];
                unrolled!(i < TAPS { column[i] = taps.load(isa, [i, j], at); });
                columns[j] = numbers.mean(isa, column);
            });
            unrolled!(i < P {
                let mut row = [zero; TAPS];
                unrolled!(j < TAPS { row[j] = columns[j][i]; });
                let row = numbers.mean(isa, row);
                unrolled!(j < P { to.store(isa, row[j], [i, j], at); });
            });
        }
    }
}

/// Transforms the sums of a patch into its results.
struct Results<'a, N, const P: usize, const R: usize> {
    numbers: N,
    /// `[points, width]`.
    sums: &'a [f32],
    width: usize,
    /// Lines of pixels.
    to: &'a mut [f32],
    line: usize,
    /// Whether there are results already, of other channels.
    adds: bool,
}

impl<I: Isa, N: Numbers<I, P, R>, const P: usize, const R: usize> Apart<I>
    for Results<'_, N, P, R>
{
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { numbers, sums, width, to, line, adds } = self;
        let point = const { Distances::new(N::PATCHES, N::PER_LANE).sums };
        let sums = Spaced::<P, P>::new(sums, [P * point, point], width);
        let mut to = SpacedMut::<R, R>::new(to, [line, width], width);
        let zero = isa.splat(0.0);
        for at in (0..width).step_by(LANES) {
            let mut columns = [[zero; R]; P];
            unrolled!(j < P {
                let mut column = [zero; P];
                unrolled!(i < P { column[i] = sums.load(isa, [i, j], at); });
                columns[j] = numbers.total(isa, column);
            });
            unrolled!(i < R {
                let mut row = [zero; P];
                unrolled!(j < P { row[j] = columns[j][i]; });
                let row = numbers.total(isa, row);
                unrolled!(j < R {
                    let before = if adds { Some(to.load(isa, [i, j], at)) } else { None };
                    to.store(isa, numbers.result(isa, row[j], (at, before)), [i, j], at);
                });
            });
        }
    }
}
