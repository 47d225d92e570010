//! What the arithmetic units of this machine can do at most: loops without memory traffic.

use std::time::{Duration, Instant};

use crate::{
    Cpu,
    format::ActivationFormat,
    isa::{Bf16Dot, Bf16Op, Isa, SimdOp},
};

/// Multiply-adds per second of all threads together, in `f32` or on bf16 pairs; `None` where the
/// instruction set has no products of bf16 pairs.
///
/// The best of several runs, since whatever else runs on the machine can only slow a loop down.
pub fn multiply_adds_per_second(cpu: &Cpu, format: ActivationFormat) -> Option<f64> {
    let bf16 = format == ActivationFormat::Bf16;
    if bf16 && !cpu.has_bf16_dot() {
        return None;
    }
    let best = (0..RUNS).map(|_| time(cpu, bf16)).min()?;
    let lanes = if bf16 { 32.0 } else { 16.0 };
    let work = cpu.threads.count() as f64 * (ROUNDS * CHAINS) as f64 * lanes;
    Some(work / best.as_secs_f64())
}

const RUNS: usize = 7;

/// Independent chains, more than the latency of a multiply-add times their number per cycle.
const CHAINS: usize = 16;

const ROUNDS: usize = 1 << 20;

fn time(cpu: &Cpu, bf16: bool) -> Duration {
    let start = Instant::now();
    cpu.threads.run(cpu.threads.count(), |_| {
        let sum = if bf16 { cpu.eval_bf16(Loop).unwrap_or(0.0) } else { cpu.eval(Loop) };
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

#[inline(always)]
fn turn<I: Isa>(isa: I, f: impl Fn(I::V, [I::V; 2]) -> I::V) -> f32 {
    let factors = std::hint::black_box([1.0_f32, 0.5]).map(|x| isa.splat(x));
    let mut chains: [I::V; CHAINS] = std::array::from_fn(|i| isa.splat(i as f32));
    for _ in 0..ROUNDS {
        for chain in &mut chains {
            *chain = f(*chain, factors);
        }
    }
    chains.into_iter().map(|chain| isa.reduce_add(chain)).sum()
}
