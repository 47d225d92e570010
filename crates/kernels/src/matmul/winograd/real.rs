//! Minimal filtering in `f32`.

use std::ops::Range;

use super::{Domain, OUTSIDE, POINTS, Patches, Places};
use crate::{
    format::{Activations, PANEL, PanelFormat, int},
    isa::{Apart, Isa, LANES},
    matmul::{Fma, chunk::Panel},
};

/// Real numbers.
#[derive(Clone, Copy)]
pub(super) struct Real;

/// Channels whose weights are widened together, so few that they stay in the nearest cache where their format allows it.
pub(super) fn widened_channels(format: PanelFormat) -> usize {
    match format {
        PanelFormat::F32 => 0,
        PanelFormat::F16 | PanelFormat::Bf16 => LANES,
        PanelFormat::Int8 | PanelFormat::Int4 | PanelFormat::Int2 => int::GROUP,
    }
}

impl<I: Isa> Domain<I> for Real {
    type Arithmetic = Fma;

    const ARITHMETIC: Fma = Fma;
    const PER_GROUP: usize = 1;

    #[inline(always)]
    fn input(self, isa: I, patches: &Patches<'_>, to: &mut [f32]) {
        match *patches.input {
            Activations::F32(values) => isa.apart(Input { values, patches, to }),
            Activations::Bf16(values) => isa.apart(Input { values, patches, to }),
            Activations::U8(_) => unreachable!("codes are not real numbers"),
        }
    }

    #[inline(always)]
    fn weights(
        self,
        isa: I,
        (panel, channels): (&Panel<'_>, Range<usize>),
        widened: &mut [f32],
        to: &mut [f32],
    ) {
        let step = if widened.is_empty() { channels.len() } else { widened.len() / (9 * PANEL) };
        for start in channels.clone().step_by(step) {
            let some = start..channels.end.min(start + step);
            let (taps, stride) = panel.reals(isa, some.clone(), widened);
            let at = (start - channels.start) * panel.width;
            let point = channels.len() * panel.width;
            let length = some.len() * panel.width;
            isa.apart(Weights { taps, stride, length, to: &mut to[at..], point });
        }
    }

    #[inline(always)]
    fn output(
        self,
        isa: I,
        (sums, point): (&[f32], usize),
        (patch, width): (usize, usize),
        (to, line): (&mut [f32], usize),
    ) {
        isa.apart(Results { sums: &sums[patch * width..], point, width, to, line });
    }
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
        let point = places.len() * groups;
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
        let mut columns = [[isa.splat(0.0); 4]; 4];
        for (j, column) in columns.iter_mut().enumerate() {
            let mut d = [isa.splat(0.0); 4];
            for (i, d) in d.iter_mut().enumerate() {
                let place = places[4 * i + j];
                let from = if place == OUTSIDE {
                    &nothing
                } else {
                    let start = place as usize * stride + channel;
                    values[start..].first_chunk().expect("channels come in whole vectors")
                };
                *d = T::load(isa, from);
            }
            *column = difference(isa, d);
        }
        for i in 0..4 {
            let row = difference(isa, columns.map(|column| column[i]));
            for (j, v) in row.into_iter().enumerate() {
                isa.write(v, &mut to[(4 * i + j) * point + at..][..LANES]);
            }
        }
    }
}

/// `Bᵀ d`.
#[inline(always)]
fn difference<I: Isa>(isa: I, d: [I::V; 4]) -> [I::V; 4] {
    [isa.sub(d[0], d[2]), isa.add(d[1], d[2]), isa.sub(d[2], d[1]), isa.sub(d[1], d[3])]
}

/// Transforms taps.
struct Weights<'a> {
    /// `[9, length]`, `stride` apart.
    taps: &'a [f32],
    stride: usize,
    length: usize,
    /// `[points, length]`, `point` apart.
    to: &'a mut [f32],
    point: usize,
}

impl<I: Isa> Apart<I> for Weights<'_> {
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { taps, stride, length, to, point } = self;
        for at in (0..length).step_by(LANES) {
            let mut columns = [[isa.splat(0.0); 4]; 3];
            for (j, column) in columns.iter_mut().enumerate() {
                let mut g = [isa.splat(0.0); 3];
                for (i, g) in g.iter_mut().enumerate() {
                    *g = isa.read(&taps[(3 * i + j) * stride + at..][..LANES]);
                }
                *column = mean(isa, g);
            }
            for i in 0..4 {
                let row = mean(isa, columns.map(|column| column[i]));
                for (j, u) in row.into_iter().enumerate() {
                    isa.write(u, &mut to[(4 * i + j) * point + at..][..LANES]);
                }
            }
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
            let mut columns = [[isa.splat(0.0); 2]; 4];
            for (j, column) in columns.iter_mut().enumerate() {
                let mut m = [isa.splat(0.0); 4];
                for (i, m) in m.iter_mut().enumerate() {
                    *m = isa.read(&sums[(4 * i + j) * point + at..][..LANES]);
                }
                *column = total(isa, m);
            }
            for i in 0..2 {
                let row = total(isa, columns.map(|column| column[i]));
                for (j, y) in row.into_iter().enumerate() {
                    isa.write(y, &mut to[i * line + j * width + at..][..LANES]);
                }
            }
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

const _: () = assert!(POINTS == 16);
