//! Attention: softmax of products of queries and keys, applied to values.
//!
//! `y[i] = Σⱼ softmaxⱼ(scale · q[i] · k[j]) v[j]` for each head.
//!
//! The plain algorithm makes the whole matrix of scores. Here:
//!
//! 1. *Online softmax.* Keys are taken in blocks; each query keeps the greatest score so far and
//!    the sum of exponentials relative to it, and its partial result is scaled down when a greater
//!    score turns up. Scores exist for one block of queries and one block of keys at a time.
//! 2. *Packing.* A first pass packs keys like weights, `[tokens / 64][head][64]`, and values
//!    as `[tokens][head]`, so that both products run on the register tile of
//!    [`crate::matmul`]. With bf16 products the pairs run over the head for keys and over tokens
//!    for values.
//! 3. *Codes.* Scores can be products of bytes, see [`Scores::Int8`]. Values and their weights are numbers of 16 bits then,
//!    or bf16 where the CPU multiplies pairs of these.
//! 4. *Tiles.* Where the CPU multiplies whole tiles and heads fill them, both products do.
//! 5. *Chunks* are blocks of queries of one head; blocks are the same for any number of threads.

mod block;
mod codes;
mod packing;
mod softmax;
mod tiled;
mod values;

use block::QueryBlock;
use packing::{Packed, Sizes};

use crate::{
    Cpu,
    format::{ActivationFormat, Activations},
    scratch::{self, Scratch},
    threads::{Grid, Order, Output},
};

/// Rows of queries, keys or values; all heads of a token lie side by side.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// The numbers, of which these may be a part.
    pub values: Activations<'a>,
    /// First element of the first token.
    pub offset: usize,
    /// Distance of two tokens in elements; batch entries follow each other.
    pub stride: usize,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mask {
    /// All.
    #[default]
    None,
    /// Those up to its own position.
    Causal,
}

/// How products of queries and keys are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scores {
    /// From real numbers.
    #[default]
    Real,
    /// From codes of 8 bits, a unit for each token; keys are taken relative to their mean, which changes
    /// no weight.
    Int8,
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Number of sequences.
    pub batch: usize,
    /// Number of heads.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Queries of a sequence.
    pub tokens_q: usize,
    /// Keys and values of a sequence.
    pub tokens_k: usize,
}

/// Attention of all heads of all sequences.
#[derive(Debug)]
pub struct Attention<'a> {
    /// Sizes.
    pub shape: AttentionShape,
    /// `[batch, tokens_q, heads, head_dim]`.
    pub q: Heads<'a>,
    /// `[batch, tokens_k, heads, head_dim]`, in the format of `q`.
    pub k: Heads<'a>,
    /// `[batch, tokens_k, heads, head_dim]`, in the format of `q`.
    pub v: Heads<'a>,
    /// How queries meet keys.
    pub scores: Scores,
    /// Factor of the scores, usually `1 / √head_dim`.
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: Mask,
    /// `[batch, tokens_q, heads · head_dim]`.
    pub output: Output<'a>,
    /// At least [`scratch_bytes`] bytes of any content.
    pub scratch: &'a mut [u8],
}

/// Bytes of scratch that an [`Attention`] of this shape needs on `cpu`.
pub fn scratch_bytes(
    formats: (ActivationFormat, Scores),
    shape: &AttentionShape,
    cpu: &Cpu,
) -> usize {
    let sizes = Sizes::new(formats, shape, cpu);
    let [means, channels] =
        [sizes.means_length(), sizes.channels_length()].map(|length| length.saturating_mul(4));
    let shared = scratch::bytes(&[sizes.keys_bytes(), sizes.values_bytes(), means, channels]);
    shared.saturating_add(sizes.worker_bytes().saturating_mul(cpu.threads.count()))
}

impl Attention<'_> {
    /// Compute all heads.
    ///
    /// # Panics
    ///
    /// Panics if an operand is smaller than its shape says, if formats differ, or if the scratch is
    /// smaller than [`scratch_bytes`].
    pub fn run(self, cpu: &Cpu) {
        let Self { shape, q, k, v, scores, scale, mask, output, scratch } = self;
        let format = q.values.format();
        assert!(format != ActivationFormat::U8, "attention reads real numbers");
        assert!(scale > 0.0, "scores are scaled by a positive factor");
        assert!(k.values.format() == format && v.values.format() == format, "one format for all");
        let sizes = Sizes::new((format, scores), &shape, cpu);
        let mut scratch = Scratch::new(scratch);
        let keys = scratch.take::<u8>(sizes.keys_bytes());
        let values = scratch.take::<u8>(sizes.values_bytes());
        let means = scratch.take::<f32>(sizes.means_length());
        let channels = scratch.take::<f32>(sizes.channels_length());
        let found = [means, &mut *channels];
        packing::pack(cpu, &sizes, [(k, &mut *keys), (v, &mut *values)], found);
        let packed = Packed { keys, values, channels };
        let grid = Grid {
            groups: shape.batch,
            rows: shape.tokens_q,
            columns: shape.heads * shape.head_dim,
            row_block: sizes.query_block(),
            column_block: shape.head_dim.max(1),
            order: Order::RowsFirst,
        };
        let (sizes, packed) = (&sizes, &packed);
        cpu.threads.run_tiles((output, grid), scratch.rest(), |output, workspace| {
            let block = QueryBlock { sizes, q, packed, scale, mask, output, workspace };
            if sizes.is_tiled() {
                // The sizes say so only where the CPU has tiles.
                cpu.eval_tiles(block);
            } else if sizes.is_bf16_dot() {
                // The sizes say so only where the CPU has the products.
                let _ = cpu.eval_bf16(block);
            } else if sizes.has_words() {
                // The sizes say so only where the CPU has them.
                drop(cpu.eval_int16_only(block));
            } else if sizes.has_codes() {
                cpu.eval_int8(block);
            } else {
                cpu.eval(block);
            }
        });
    }
}
