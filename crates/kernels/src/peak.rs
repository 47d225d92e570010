//! What the arithmetic units of this machine can do at most: loops without memory traffic, or, where products are those
//! of whole tiles, within the nearest cache.

use std::time::{Duration, Instant};

use crate::{
    Cpu,
    format::ActivationFormat,
    isa::{
        Bf16Dot, Bf16Op, Int8Dot, Int8Op, Isa, LANES, SimdOp,
        tiles::{Ahead, Numbers, STEP, STRIP, TILE, TileOp, TileRows, TileStrip, Tiles},
    },
};

/// Multiply-adds per second of all threads together, in `f32`, on bf16 pairs or on bytes; `None`
/// where the instruction set has no products of bf16 pairs.
///
/// The best of several runs, since whatever else runs on the machine can only slow a loop down.
pub fn multiply_adds_per_second(cpu: &Cpu, format: ActivationFormat) -> Option<f64> {
    if format == ActivationFormat::Bf16 && !cpu.has_bf16_dot() {
        return None;
    }
    if cpu.has_tiles() && format != ActivationFormat::F32 {
        let best = (0..RUNS).map(|_| time_tiles(cpu, format)).min()?;
        let size = if format == ActivationFormat::Bf16 { 2 } else { 1 };
        let products = STRIPS * DEPTH * STRIP * 2 * LANES * STEP / size;
        return Some((cpu.threads.count() * products) as f64 / best.as_secs_f64());
    }
    let best = (0..RUNS).map(|_| time(cpu, format)).min()?;
    let lanes = match format {
        ActivationFormat::F32 => 16.0,
        ActivationFormat::Bf16 => 32.0,
        ActivationFormat::U8 => 64.0,
    };
    let work = cpu.threads.count() as f64 * STEPS as f64 * lanes;
    Some(work / best.as_secs_f64())
}

const RUNS: usize = 7;

/// Steps of all chains together.
const STEPS: usize = 3 << 22;

fn time(cpu: &Cpu, format: ActivationFormat) -> Duration {
    let start = Instant::now();
    cpu.threads.run(cpu.threads.count(), |_| {
        let sum = match format {
            ActivationFormat::F32 => cpu.eval(Loop),
            ActivationFormat::Bf16 => cpu.eval_bf16(Loop).unwrap_or(0.0),
            ActivationFormat::U8 => cpu.eval_int8(Loop),
        };
        std::hint::black_box(sum);
    });
    start.elapsed()
}

/// Strips of a run.
const STRIPS: usize = 1 << 13;

/// Steps of a strip: its rows and lanes stay in the nearest cache.
const DEPTH: usize = 10;

fn time_tiles(cpu: &Cpu, format: ActivationFormat) -> Duration {
    let numbers = if format == ActivationFormat::Bf16 { Numbers::Pairs } else { Numbers::Bytes };
    let start = Instant::now();
    cpu.threads.run(cpu.threads.count(), |_| {
        cpu.eval_tiles(TileLoop(numbers));
    });
    start.elapsed()
}

/// Many strips of the same rows and lanes, all of them zero.
struct TileLoop(Numbers);

impl TileOp for TileLoop {
    #[inline(always)]
    fn eval<I: Int8Dot, T: Tiles>(self, _: I, tiles: T) {
        let rows = vec![0_u8; STRIP * DEPTH * STEP];
        let lanes = vec![0.0; DEPTH * TILE * 2 * LANES];
        let stride = DEPTH * STEP;
        let halves = [0, TILE].map(|row| TileRows { bytes: &rows[row * stride..], stride });
        let strip = TileStrip {
            numbers: self.0,
            rows: STRIP,
            vectors: 2,
            segments: &[halves],
            steps: DEPTH,
            b: &lanes,
            b_stride: 2,
            accumulate: false,
            ahead: Ahead::nothing(&lanes),
        };
        let mut sums = [0.0; STRIP * 2 * LANES];
        for _ in 0..STRIPS {
            tiles.multiply(&strip, (std::hint::black_box(&mut sums), 2));
        }
        tiles.release();
    }
}

struct Loop;

impl SimdOp for Loop {
    type Output = f32;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        turn(isa, |acc, [a, b]| isa.fma(a, b, acc))
    }
}

impl Bf16Op for Loop {
    type Output = f32;

    #[inline(always)]
    fn eval<I: Bf16Dot>(self, isa: I) -> f32 {
        turn(isa, |acc, [a, b]| isa.dot_bf16(acc, a, b))
    }
}

impl Int8Op for Loop {
    type Output = f32;

    #[inline(always)]
    fn eval<I: Int8Dot>(self, isa: I) -> f32 {
        turn(isa, |acc, [a, b]| isa.dot_int8(acc, a, isa.factor(b)))
    }
}

#[inline(always)]
fn turn<I: Isa>(isa: I, f: impl Fn(I::V, [I::V; 2]) -> I::V) -> f32 {
    if I::TILE_VECTORS == 1 { turns::<I, 6>(isa, f) } else { turns::<I, 16>(isa, f) }
}

/// All turns of `N` independent chains: more than the latency of a multiply-add times their number per cycle, and no
/// more than fit into registers, of which a vector takes several where a tile has one.
#[inline(always)]
fn turns<I: Isa, const N: usize>(isa: I, f: impl Fn(I::V, [I::V; 2]) -> I::V) -> f32 {
    let factors = isa.splat(std::hint::black_box(0.5));
    let mut chains: [I::V; N] = std::array::from_fn(|i| isa.splat(i as f32));
    for _ in 0..STEPS / N {
        // Each chain multiplies another, so that no product is the same in all rounds.
        for i in 0..N {
            chains[i] = f(chains[i], [chains[(i + 1) % N], factors]);
        }
    }
    chains.into_iter().map(|chain| isa.reduce_add(chain)).sum()
}
