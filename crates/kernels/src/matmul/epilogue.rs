//! What follows the sums of a matrix product.

use std::ops::Range;

use super::tile::Arithmetic;
use crate::{
    activation::Activation,
    format::Activations,
    isa::{Apart, Isa, LANES},
    math,
    matmul::tile::Sink,
    quantize::Range8,
    threads::OutputTile,
};

/// What integers stand for: `y = scale[n] · range.scale · (sum − range.zero · Σₖ weight[k, n])`.
///
/// Without ranges the activations were real, and `y = scale[n] · sum`. All arrays are in the order of
/// the lanes of the panels and as long as all of them.
#[derive(Clone, Copy, Debug)]
pub struct Dequantize<'a> {
    /// `[lanes]`, the units of the weights.
    pub scales: &'a [f32],
    /// `[lanes]`, the sums of all weights of a channel.
    pub sums: &'a [f32],
    /// The ranges of the activations.
    pub ranges: Option<Ranges<'a>>,
}

/// The ranges of quantized rows.
#[derive(Clone, Copy, Debug)]
pub struct Ranges<'a> {
    /// One for each group of rows.
    pub values: &'a [Range8],
    /// Output rows that share one.
    pub rows_per_range: usize,
}

impl Ranges<'_> {
    /// The range of an output row.
    #[inline(always)]
    pub(crate) fn of(&self, row: usize) -> Range8 {
        // A division takes as long as many products.
        self.values[if self.rows_per_range == 1 { row } else { row / self.rows_per_range }]
    }
}

impl Dequantize<'_> {
    /// What sums of output row `row` stand for, in lanes from `lane` on.
    #[inline(always)]
    fn apply<I: Isa, const C: usize>(
        &self,
        isa: I,
        (row, lane): (usize, usize),
        mut sums: [I::V; C],
    ) -> [I::V; C] {
        // Loops, not closures: those may be left out of line, where every intrinsic is a call.
        let scales = vectors::<f32, C>(&self.scales[lane..]);
        let Some(ranges) = self.ranges else {
            for (sum, scale) in sums.iter_mut().zip(scales) {
                *sum = isa.mul(*sum, isa.load(scale));
            }
            return sums;
        };
        let range = ranges.of(row);
        let (zero, unit) = (isa.splat(-range.zero), isa.splat(range.scale));
        let weights = vectors::<f32, C>(&self.sums[lane..]);
        for (sum, (scale, weights)) in sums.iter_mut().zip(scales.iter().zip(weights)) {
            let centered = isa.fma(zero, isa.load(weights), *sum);
            *sum = isa.mul(centered, isa.mul(isa.load(scale), unit));
        }
        sums
    }
}

/// `y = act(sum + bias + shift + residual) · scale`, or `y = (h + bias) · gelu(g + bias) · scale`
/// for a gated layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Comes first where weights are integers.
    pub dequantize: Option<Dequantize<'a>>,
    /// `[n]`; for a gated layer `[2, hidden]`, hidden first.
    pub bias: Option<&'a [f32]>,
    /// A row for each group of output rows, such as the time embedding of an image.
    pub shift: Option<Shift<'a>>,
    /// A number for each output.
    pub residual: Option<Residual<'a>>,
    /// Applied to the sum of all the above.
    pub activation: Activation,
    /// Whether lanes are hidden units and their gates. A gated layer has neither shift nor
    /// residual nor activation.
    pub gate: Gate,
    /// Applied last.
    pub scale: Option<f32>,
}

/// `[rows / rows_per_batch, n]`, added to all rows of a batch entry.
#[derive(Clone, Copy, Debug)]
pub struct Shift<'a> {
    /// The rows.
    pub values: &'a [f32],
    /// Distance of two of them.
    pub stride: usize,
    /// Output rows that share one.
    pub rows_per_batch: usize,
}

/// `[rows, n]`, added element by element.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// The rows, `f32` or bf16.
    pub values: Activations<'a>,
    /// Distance of two of them.
    pub stride: usize,
}

impl<'a> Residual<'a> {
    /// The numbers from `start` on: `f32` ones, or bf16.
    #[inline(always)]
    fn from(&self, start: usize) -> (Option<&'a [f32]>, Option<&'a [u16]>) {
        match self.values {
            Activations::F32(values) => (Some(&values[start..]), None),
            Activations::Bf16(bits) => (None, Some(&bits[start..])),
            Activations::U8(_) => unreachable!("codes are no residual"),
        }
    }
}

/// Whether a layer is gated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Lanes are outputs.
    #[default]
    None,
    /// Sixteen hidden lanes are followed by their sixteen gates; see
    /// [`crate::format::Rows::Interleaved16`].
    Geglu {
        /// Number of outputs.
        hidden: usize,
    },
}

impl Epilogue<'_> {
    /// Whether nothing but sums and a factor follow the product.
    pub(super) fn is_linear(&self) -> bool {
        self.activation == Activation::None && self.gate == Gate::None
    }

    /// Finish rows `rows` of `output` (counted within its tile) from their sums `[rows, width]`.
    #[inline(always)]
    pub(super) fn finish<I: Isa, A: Arithmetic<I>>(
        &self,
        (isa, arithmetic): (I, A),
        output: &mut OutputTile<'_>,
        (rows, sums, width): (Range<usize>, &[f32], usize),
    ) {
        isa.apart(Finish { epilogue: self, arithmetic, output, rows, sums, width });
    }

    /// Bring near what [`Epilogue::finish_whole`] will touch of some rows.
    #[inline(always)]
    pub(super) fn expect_whole<I: Isa>(
        &self,
        isa: I,
        (output, streams): (&mut OutputTile<'_>, bool),
        (rows, width): (Range<usize>, usize),
    ) {
        for first in rows {
            let mut direct = Direct { epilogue: self, output, first, takes: true, streams };
            let vectors = width / LANES;
            for vector in (0..vectors).step_by(TOGETHER) {
                if vector + TOGETHER <= vectors {
                    direct.expect::<TOGETHER>(isa, 0, vector);
                }
            }
        }
    }

    /// [`Epilogue::finish`] for an epilogue that is linear and a panel whose lanes are all outputs.
    #[inline(always)]
    pub(super) fn finish_whole<I: Isa, A: Arithmetic<I>>(
        &self,
        (isa, arithmetic): (I, A),
        (output, streams): (&mut OutputTile<'_>, bool),
        (rows, sums, width): (Range<usize>, &[f32], usize),
    ) {
        let first = rows.start;
        let direct = Direct { epilogue: self, output, first, takes: true, streams };
        isa.apart(FinishWhole { arithmetic, direct, sums, width });
    }
}

/// The arguments of [`Epilogue::finish_whole`].
struct FinishWhole<'e, 'o, 't, A> {
    arithmetic: A,
    direct: Direct<'e, 'o, 't>,
    sums: &'e [f32],
    width: usize,
}

/// Vectors that are finished together.
const TOGETHER: usize = 4;

impl<I: Isa, A: Arithmetic<I>> Apart<I> for FinishWhole<'_, '_, '_, A> {
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { arithmetic, mut direct, sums, width } = self;
        for (row, sums) in sums.chunks_exact(width).enumerate() {
            let (parts, rest) = sums.as_chunks::<LANES>().0.as_chunks::<TOGETHER>();
            for (part, [a, b, c, d]) in parts.iter().enumerate() {
                let acc = [
                    arithmetic.real(isa, isa.load(a)),
                    arithmetic.real(isa, isa.load(b)),
                    arithmetic.real(isa, isa.load(c)),
                    arithmetic.real(isa, isa.load(d)),
                ];
                direct.take(isa, (row, TOGETHER * part), acc);
            }
            for (vector, sums) in (TOGETHER * parts.len()..).zip(rest) {
                direct.take(isa, (row, vector), [arithmetic.real(isa, isa.load(sums))]);
            }
        }
    }
}

/// The arguments of [`Epilogue::finish`].
struct Finish<'f, 'o, A> {
    epilogue: &'f Epilogue<'f>,
    arithmetic: A,
    output: &'f mut OutputTile<'o>,
    rows: Range<usize>,
    sums: &'f [f32],
    width: usize,
}

impl<I: Isa, A: Arithmetic<I>> Apart<I> for Finish<'_, '_, A> {
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { epilogue, arithmetic, output, rows, sums, width } = self;
        for (row, sums) in rows.zip(sums.chunks_exact(width)) {
            match epilogue.gate {
                Gate::None => epilogue.finish_row((isa, arithmetic), output, (row, sums)),
                Gate::Geglu { hidden } => {
                    epilogue.gate_row((isa, arithmetic), output, (row, sums), hidden);
                }
            }
        }
    }
}

impl Epilogue<'_> {
    #[inline(always)]
    fn finish_row<I: Isa, A: Arithmetic<I>>(
        &self,
        (isa, arithmetic): (I, A),
        output: &mut OutputTile<'_>,
        (row, sums): (usize, &[f32]),
    ) {
        let columns = output.cell.columns.clone();
        let global = output.cell.rows.start + row;
        let bias = self.bias.map(|bias| &bias[columns.clone()]);
        let shift = self.shift.map(|shift| {
            &shift.values[global / shift.rows_per_batch * shift.stride..][columns.clone()]
        });
        let residual = self.residual.map(|r| r.from(global * r.stride + columns.start));
        let (residual, rounded) = residual.unwrap_or_default();
        let scale = self.scale.map(|scale| isa.splat(scale));
        for (start, sums) in (0..columns.len()).step_by(LANES).zip(sums.as_chunks().0) {
            let lanes = start..columns.len().min(start + LANES);
            let mut y = arithmetic.real(isa, isa.load(sums));
            if let Some(dequantize) = &self.dequantize {
                [y] = dequantize.apply(isa, (global, columns.start + start), [y]);
            }
            for added in [bias, shift, residual].into_iter().flatten() {
                y = isa.add(y, isa.read(&added[lanes.clone()]));
            }
            if let Some(rounded) = rounded {
                y = isa.add(y, isa.read_bf16(&rounded[lanes]));
            }
            y = self.activation.apply(isa, y);
            if let Some(scale) = scale {
                y = isa.mul(y, scale);
            }
            output.write(isa, (row, start), y);
        }
    }

    #[inline(always)]
    fn gate_row<I: Isa, A: Arithmetic<I>>(
        &self,
        (isa, arithmetic): (I, A),
        output: &mut OutputTile<'_>,
        (row, sums): (usize, &[f32]),
        hidden: usize,
    ) {
        let columns = output.cell.columns.clone();
        let global = output.cell.rows.start + row;
        let biases = self.bias.map(|bias| bias[..2 * hidden].split_at(hidden));
        let pairs = sums.as_chunks::<LANES>().0.as_chunks::<2>().0;
        let is_coarse = output.f32.is_none();
        for (start, [h, g]) in (0..columns.len()).step_by(LANES).zip(pairs) {
            let lanes = start..columns.len().min(start + LANES);
            let mut h = arithmetic.real(isa, isa.load(h));
            let mut g = arithmetic.real(isa, isa.load(g));
            if let Some(dequantize) = &self.dequantize {
                let lane = 2 * (columns.start + start);
                [h, g] = dequantize.apply(isa, (global, lane), [h, g]);
            }
            if let Some((hidden_bias, gate_bias)) = biases {
                let lanes = columns.start + lanes.start..columns.start + lanes.end;
                h = isa.add(h, isa.read(&hidden_bias[lanes.clone()]));
                g = isa.add(g, isa.read(&gate_bias[lanes]));
            }
            let gate = if is_coarse { math::gelu_coarse(isa, g) } else { math::gelu(isa, g) };
            let mut y = isa.mul(h, gate);
            if let Some(scale) = self.scale {
                y = isa.mul(y, isa.splat(scale));
            }
            output.write(isa, (row, start), y);
        }
    }
}

/// Finishes the rows of a tile from registers, for an epilogue that is linear and a panel whose
/// lanes are all outputs.
pub(super) struct Direct<'e, 'o, 't> {
    pub(super) epilogue: &'e Epilogue<'e>,
    pub(super) output: &'o mut OutputTile<'t>,
    /// The first row, counted within the tile of the output.
    pub(super) first: usize,
    /// Whether rows are finished; otherwise they go to the sums.
    pub(super) takes: bool,
    /// Whether `f32` results are written past the caches.
    pub(super) streams: bool,
}

impl Direct<'_, '_, '_> {
    /// The summands of a row from `column` on, counted within the tile of the output.
    #[inline(always)]
    fn summands(&self, row: usize, column: usize) -> ([Option<&[f32]>; 3], Option<&[u16]>) {
        let Epilogue { bias, shift, residual, .. } = *self.epilogue;
        let row = self.output.cell.rows.start + row;
        let column = self.output.cell.columns.start + column;
        let residual = residual.map(|residual| residual.from(row * residual.stride + column));
        let (residual, rounded) = residual.unwrap_or_default();
        let summands = [
            bias.map(|bias| &bias[column..]),
            shift.map(|shift| &shift.values[row / shift.rows_per_batch * shift.stride + column..]),
            residual,
        ];
        (summands, rounded)
    }
}

impl<I: Isa> Sink<I> for Direct<'_, '_, '_> {
    #[inline(always)]
    fn expect<const C: usize>(&mut self, isa: I, row: usize, vector: usize) {
        if !self.takes {
            return;
        }
        let (row, column) = (self.first + row, vector * LANES);
        if let Some(residual) = self.epilogue.residual {
            let global = self.output.cell.rows.start + row;
            let start = global * residual.stride + self.output.cell.columns.start + column;
            match residual.from(start) {
                (Some(row), _) => {
                    for c in 0..C {
                        isa.prefetch(row.as_ptr().wrapping_add(c * LANES));
                    }
                }
                (None, row) => {
                    let at = row.unwrap_or_default().as_ptr();
                    for c in (0..C).step_by(2) {
                        isa.prefetch(at.wrapping_add(c * LANES));
                    }
                }
            }
        }
        if let Some(tile) = &mut self.output.f32
            && !self.streams
        {
            let row = &tile.row(row)[column..];
            for c in 0..C {
                isa.prefetch(row.as_ptr().wrapping_add(c * LANES));
            }
        }
        if let Some(tile) = &mut self.output.bf16 {
            let row = &tile.row(row)[column..];
            for c in (0..C).step_by(2) {
                isa.prefetch(row.as_ptr().wrapping_add(c * LANES));
            }
        }
    }

    #[inline(always)]
    fn takes(&self) -> bool {
        self.takes
    }

    #[inline(always)]
    fn take<const C: usize>(&mut self, isa: I, (row, vector): (usize, usize), mut acc: [I::V; C]) {
        let (row, column) = (self.first + row, vector * LANES);
        if let Some(dequantize) = &self.epilogue.dequantize {
            let (global, lane) =
                (self.output.cell.rows.start + row, self.output.cell.columns.start + column);
            acc = dequantize.apply(isa, (global, lane), acc);
        }
        let ([bias, shift, residual], rounded) = self.summands(row, column);
        // A loop over them would keep them in memory.
        acc = plus(isa, acc, bias);
        acc = plus(isa, acc, shift);
        acc = plus(isa, acc, residual);
        if let Some(rounded) = rounded {
            for (acc, summand) in acc.iter_mut().zip(vectors::<u16, C>(rounded)) {
                *acc = isa.add(*acc, isa.widen_bf16(summand));
            }
        }
        if let Some(scale) = self.epilogue.scale {
            for acc in &mut acc {
                *acc = isa.mul(*acc, isa.splat(scale));
            }
        }
        if let Some(tile) = &mut self.output.f32 {
            let to = vectors_mut::<f32, C>(&mut tile.row(row)[column..]);
            for (acc, to) in acc.iter().zip(to) {
                if self.streams {
                    isa.stream(*acc, to);
                } else {
                    isa.store(*acc, to);
                }
            }
        }
        if let Some(tile) = &mut self.output.bf16 {
            let to = vectors_mut::<u16, C>(&mut tile.row(row)[column..]);
            for c in 0..C {
                isa.narrow_bf16(acc[c], &mut to[c]);
            }
        }
    }
}

/// `acc` and what the first of `row` are, if there is one.
#[inline(always)]
fn plus<I: Isa, const C: usize>(isa: I, mut acc: [I::V; C], row: Option<&[f32]>) -> [I::V; C] {
    if let Some(row) = row {
        for (acc, summand) in acc.iter_mut().zip(vectors::<f32, C>(row)) {
            *acc = isa.add(*acc, isa.load(summand));
        }
    }
    acc
}

/// What every row has room for, as the panel is no wider than the output.
const WIDE: &str = "rows are as wide as the panel";

/// The first `C` vectors of a row; their number is known, so that loops over them vanish.
#[inline(always)]
fn vectors<T, const C: usize>(row: &[T]) -> &[[T; LANES]; C] {
    row.as_chunks().0.first_chunk().expect(WIDE)
}

/// [`vectors`] to be written.
#[inline(always)]
fn vectors_mut<T, const C: usize>(row: &mut [T]) -> &mut [[T; LANES]; C] {
    row.as_chunks_mut().0.first_chunk_mut().expect(WIDE)
}
