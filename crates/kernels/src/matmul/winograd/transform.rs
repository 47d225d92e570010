//! The transforms of minimal filtering, in `f32`: of patches, of taps, and of sums back into results.

use std::ops::Range;

use super::{OUTSIDE, Patches, Places, apart};
use crate::{
    format::{Activations, PANEL, PanelFormat, int},
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

/// Channels whose weights are widened together, few, so that they stay in the nearest cache; whole groups of integers.
pub(super) fn widened_channels(format: PanelFormat) -> usize {
    if format.is_int() { int::GROUP } else { 8 }
}

/// `Bᵀ d B` of some channels of patches, `[points, patches, channels]`.
#[inline(always)]
pub(super) fn input<I: Isa>(isa: I, patches: &Patches<'_>, to: &mut [f32]) {
    match *patches.input {
        Activations::F32(values) => isa.apart(Input { values, patches, to }),
        Activations::Bf16(values) => isa.apart(Input { values, patches, to }),
        Activations::U8(_) => unreachable!("codes are not real numbers"),
    }
}

/// `G g Gᵀ` of some channels of a panel, `[points, channels, width]`.
#[inline(always)]
pub(super) fn weights<I: Isa>(
    isa: I,
    (panel, channels): (&Panel<'_>, Range<usize>),
    widened: &mut [f32],
    to: &mut [f32],
) {
    let step = widened.len() / (9 * PANEL);
    let point = apart(channels.len() * panel.width);
    for start in channels.clone().step_by(step) {
        let some = start..channels.end.min(start + step);
        let at = (start - channels.start) * panel.width;
        let length = some.len() * panel.width;
        let taps = &mut widened[..9 * length];
        panel.widen(isa, some, taps);
        isa.apart(Weights { taps, length, to: &mut to[at..], point });
    }
}

/// `Aᵀ m A` of patch `patch` of sums `[points, patches, width]`, whose points are `point` numbers apart: its results go to
/// the first two pixels of two lines of `to`, which are `line` numbers apart.
#[inline(always)]
pub(super) fn output<I: Isa>(
    isa: I,
    (sums, point): (&[f32], usize),
    (patch, width): (usize, usize),
    (to, line): (&mut [f32], usize),
) {
    isa.apart(Results { sums: &sums[patch * width..], point, width, to, line });
}

/// Numbers that are read as `f32`.
trait Element<I: Isa>: Copy {
    const ZERO: Self;

    fn load(isa: I, from: &[Self; LANES]) -> I::V;
}

impl<I: Isa> Element<I> for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn load(isa: I, from: &[Self; LANES]) -> I::V {
        isa.load(from)
    }
}

/// Raw bits of bf16.
impl<I: Isa> Element<I> for u16 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn load(isa: I, from: &[Self; LANES]) -> I::V {
        isa.widen_bf16(from)
    }
}

/// Transforms what patches read.
struct Input<'a, T> {
    values: &'a [T],
    patches: &'a Patches<'a>,
    to: &'a mut [f32],
}

impl<I: Isa, T: Element<I>> Apart<I> for Input<'_, T> {
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { values, patches: Patches { places, stride, channels, .. }, to } = self;
        let groups = channels.len();
        let point = apart(places.len() * groups);
        for (number, places) in places.iter().enumerate() {
            patch((isa, values), places, (*stride, channels), (&mut to[number * groups..], point));
        }
    }
}

/// Transform one patch.
#[inline(always)]
fn patch<I: Isa, T: Element<I>>(
    (isa, values): (I, &[T]),
    places: &Places,
    (stride, channels): (usize, &Range<usize>),
    (to, point): (&mut [f32], usize),
) {
    let nothing = [T::ZERO; LANES];
    for (at, channel) in (0..).step_by(LANES).zip(channels.clone().step_by(LANES)) {
        let columns = each!(j in 0 1 2 3 => difference(isa, each!(i in 0 1 2 3 => {
            let place = places[4 * i + j];
            let start = place as usize * stride + channel;
            let from = if place == OUTSIDE { Some(&nothing) } else { values[start..].first_chunk() };
            T::load(isa, from.expect("channels come in whole vectors"))
        })));
        each!(i in 0 1 2 3 => {
            let row = difference(isa, each!(j in 0 1 2 3 => columns[j][i]));
            each!(j in 0 1 2 3 => isa.write(row[j], &mut to[(4 * i + j) * point + at..][..LANES]));
        });
    }
}

/// `Bᵀ d`.
#[inline(always)]
fn difference<I: Isa>(isa: I, d: [I::V; 4]) -> [I::V; 4] {
    [isa.sub(d[0], d[2]), isa.add(d[1], d[2]), isa.sub(d[2], d[1]), isa.sub(d[1], d[3])]
}

/// Transforms taps.
struct Weights<'a> {
    /// `[9, length]`.
    taps: &'a [f32],
    length: usize,
    /// `[points, length]`, `point` apart.
    to: &'a mut [f32],
    point: usize,
}

impl<I: Isa> Apart<I> for Weights<'_> {
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { taps, length, to, point } = self;
        for at in (0..length).step_by(LANES) {
            let columns = each!(j in 0 1 2 => mean(isa, each!(i in 0 1 2 =>
                isa.read(&taps[(3 * i + j) * length + at..][..LANES]))));
            each!(i in 0 1 2 3 => {
                let row = mean(isa, each!(j in 0 1 2 => columns[j][i]));
                each!(j in 0 1 2 3 => isa.write(row[j], &mut to[(4 * i + j) * point + at..][..LANES]));
            });
        }
    }
}

/// `G g`.
#[inline(always)]
fn mean<I: Isa>(isa: I, g: [I::V; 3]) -> [I::V; 4] {
    let half = isa.splat(0.5);
    let outer = isa.mul(isa.add(g[0], g[2]), half);
    [g[0], isa.fma(g[1], half, outer), isa.fma(g[1], isa.splat(-0.5), outer), g[2]]
}

/// Transforms the sums of a patch into its results.
struct Results<'a> {
    /// `[points, width]`, `point` apart.
    sums: &'a [f32],
    point: usize,
    width: usize,
    /// Two lines of two pixels.
    to: &'a mut [f32],
    line: usize,
}

impl<I: Isa> Apart<I> for Results<'_> {
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { sums, point, width, to, line } = self;
        for at in (0..width).step_by(LANES) {
            let columns = each!(j in 0 1 2 3 => total(isa, each!(i in 0 1 2 3 =>
                isa.read(&sums[(4 * i + j) * point + at..][..LANES]))));
            each!(i in 0 1 => {
                let row = total(isa, each!(j in 0 1 2 3 => columns[j][i]));
                each!(j in 0 1 => isa.write(row[j], &mut to[i * line + j * width + at..][..LANES]));
            });
        }
    }
}

/// `Aᵀ m`.
#[inline(always)]
fn total<I: Isa>(isa: I, m: [I::V; 4]) -> [I::V; 2] {
    let outer = isa.add(m[1], m[2]);
    let inner = isa.sub(m[1], m[2]);
    [isa.add(m[0], outer), isa.sub(inner, m[3])]
}
