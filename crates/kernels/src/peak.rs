//! What the arithmetic units of this machine can do at most: loops without memory traffic.

use std::time::{Duration, Instant};

use crate::{
    Cpu,
    format::ActivationFormat,
    isa::{Bf16Dot, Bf16Op, Int8Dot, Int8Op, Isa, SimdOp},
};

/// Multiply-adds per second of all threads together, in `f32`, on bf16 pairs or on bytes; `None`
/// where the instruction set has no products of bf16 pairs.
///
/// The best of several runs, since whatever else runs on the machine can only slow a loop down.
pub fn multiply_adds_per_second(cpu: &Cpu, format: ActivationFormat) -> Option<f64> {
    if format == ActivationFormat::Bf16 && !cpu.has_bf16_dot() {
        return None;
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
