//! What the tests of all operations share: numbers, CPUs to run on, comparison.

#![allow(dead_code, reason = "each test file uses a part of this")]

use half::bf16;
use kernels::{Cpu, isa::Level, threads::Threads};

/// Reproducible numbers between −1 and 1.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The bits of the numbers rounded to bf16.
pub(crate) fn to_bf16(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&x| bf16::from_f32(x).to_bits()).collect()
}

/// The numbers that bf16 bits mean.
pub(crate) fn from_bf16(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|&x| bf16::from_bits(x).to_f32()).collect()
}

/// Every level of this machine with one thread, and the fastest with two and three.
pub(crate) fn cpus() -> Vec<Cpu> {
    let levels = Level::available().into_iter().map(|level| (level, 1));
    let more = [2, 3].map(|threads| (Level::detect(), threads));
    let all = levels.chain(more);
    all.map(|(level, threads)| Cpu::new(Threads::new(threads), level).expect("an available level"))
        .collect()
}

/// Whether bf16 numbers are multiplied without widening them, which rounds sums elsewhere.
pub(crate) fn multiplies_pairs(cpu: &Cpu) -> bool {
    cpu.has_bf16_dot() || cpu.has_tiles()
}

/// Panic with the first place where the numbers differ by more than `tolerance`, absolute for
/// numbers below one and relative above.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let close = (g - e).abs() <= tolerance * e.abs().max(1.0);
        assert!(close, "{what}: element {i} is {g}, not {e}");
    }
}
