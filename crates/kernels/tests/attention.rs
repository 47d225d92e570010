//! Attention against its definition, on every instruction set.

mod support;

use kernels::{
    Cpu,
    attention::{self, Attention, AttentionShape, Heads, Mask, Scores},
    format::Activations,
    reference,
    threads::Output,
};
use support::{assert_close, cpus, from_bf16, numbers, to_bf16};

#[derive(Clone, Copy, Debug)]
struct Case {
    shape: AttentionShape,
    mask: Mask,
    bf16: bool,
    scores: Scores,
    /// Multiplies queries, so that some weights are far from others.
    sharpness: f32,
}

const FORMATS: [(bool, Scores); 4] =
    [(false, Scores::Real), (true, Scores::Real), (false, Scores::Int8), (true, Scores::Int8)];

impl Case {
    /// Queries, keys and values in one buffer, as a fused projection makes them.
    fn run(&self, cpu: &Cpu, by_definition: bool) -> Vec<f32> {
        let AttentionShape { batch, heads, head_dim, tokens_q, tokens_k } = self.shape;
        let width = heads * head_dim;
        let stride = 3 * width + 1;
        let mut values = numbers(1, batch * tokens_q.max(tokens_k) * stride);
        for row in values.chunks_mut(stride) {
            row[..width].iter_mut().for_each(|x| *x *= self.sharpness);
        }
        let bits = to_bf16(&values);
        let values = if self.bf16 { Activations::Bf16(&bits) } else { Activations::F32(&values) };
        let [q, k, v] = [0, 1, 2].map(|part| Heads { values, offset: part * width, stride });
        let bytes = attention::scratch_bytes((values.format(), self.scores), &self.shape, cpu);
        let mut scratch = vec![0x5a; bytes];
        let mut f32 = vec![0.0; batch * tokens_q * width];
        let mut bf16 = vec![0; f32.len()];
        let op = Attention {
            shape: self.shape,
            q,
            k,
            v,
            scores: self.scores,
            scale: (head_dim as f32).powf(-0.5),
            mask: self.mask,
            output: Output { f32: Some(&mut f32), bf16: Some(&mut bf16), stride: width },
            scratch: &mut scratch,
        };
        if by_definition {
            reference::attention(op);
        } else {
            op.run(cpu);
        }
        assert_close("bf16 output", &from_bf16(&bf16), &f32, 4e-3);
        f32
    }

    fn check(&self) {
        let cpus = cpus();
        let expected = self.run(&cpus[0], true);
        let mut exact: Option<Vec<f32>> = None;
        for cpu in &cpus {
            let what = format!("{self:?} on {} × {}", cpu.level(), cpu.threads.count());
            let got = self.run(cpu, false);
            // Where a number lies between two codes, an error of rounding decides which it gets.
            let codes = if self.scores == Scores::Int8 { 1e-3 } else { 0.0 };
            if self.bf16 && (cpu.has_bf16_dot() || cpu.has_tiles()) {
                // Weights are rounded to bf16, eight bits.
                assert_close(&what, &got, &expected, 8e-3 + codes * self.sharpness);
            } else {
                // An error of a score is an error of its weight, relative to it.
                assert_close(&what, &got, &expected, 3e-6 + (3e-7 + codes) * self.sharpness);
                let first = exact.get_or_insert_with(|| got.clone());
                let same = first.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{what}: other bits");
            }
        }
    }
}

#[test]
fn heads_and_tokens_of_all_sizes() {
    let sizes = [(40, 5, 77), (64, 100, 100), (80, 49, 3), (160, 7, 64), (8, 1, 1), (5, 9, 65)];
    let more = [(512, 50, 130), (32, 96, 700), (1, 3, 17), (64, 33, 81), (128, 31, 40)];
    for (head_dim, tokens_q, tokens_k) in sizes.into_iter().chain(more) {
        let heads = if head_dim > 100 { 1 } else { 3 };
        let shape = AttentionShape { batch: 2, heads, head_dim, tokens_q, tokens_k };
        for (bf16, scores) in FORMATS {
            for sharpness in [1.0, 30.0] {
                Case { shape, mask: Mask::None, bf16, scores, sharpness }.check();
            }
        }
    }
}

#[test]
fn causal_masks() {
    for (tokens_q, tokens_k) in [(77, 77), (1, 1), (130, 130), (600, 600), (10, 20), (20, 10)] {
        for (bf16, scores) in FORMATS {
            let shape = AttentionShape { batch: 1, heads: 2, head_dim: 64, tokens_q, tokens_k };
            Case { shape, mask: Mask::Causal, bf16, scores, sharpness: 3.0 }.check();
        }
    }
}

#[test]
fn nothing_to_attend_to_is_no_fault() {
    let shape = AttentionShape { batch: 1, heads: 1, head_dim: 4, tokens_q: 0, tokens_k: 3 };
    for (bf16, scores) in FORMATS {
        Case { shape, mask: Mask::None, bf16, scores, sharpness: 1.0 }.check();
    }
}

#[test]
fn a_value_that_is_not_finite_is_seen_in_its_channel_alone() {
    const DIM: usize = 32;
    const TOKENS: usize = 130;
    for cpu in cpus() {
        let mut numbers = numbers(1, 3 * DIM * TOKENS);
        // A value of the last token, in channel 5.
        numbers[(TOKENS - 1) * 3 * DIM + 2 * DIM + 5] = f32::INFINITY;
        let values = Activations::F32(&numbers);
        let [q, k, v] = [0, 1, 2].map(|part| Heads { values, offset: part * DIM, stride: 3 * DIM });
        let shape = AttentionShape {
            batch: 1,
            heads: 1,
            head_dim: DIM,
            tokens_q: TOKENS,
            tokens_k: TOKENS,
        };
        let scores = Scores::Int8;
        let mut scratch =
            vec![0; attention::scratch_bytes((values.format(), scores), &shape, &cpu)];
        let mut y = vec![0.0; TOKENS * DIM];
        Attention {
            shape,
            q,
            k,
            v,
            scores,
            scale: 0.2,
            mask: Mask::None,
            output: Output { f32: Some(&mut y), bf16: None, stride: DIM },
            scratch: &mut scratch,
        }
        .run(&cpu);
        for (i, y) in y.iter().enumerate() {
            assert_eq!(y.is_finite(), i % DIM != 5, "{y} at {i} on {}", cpu.level());
        }
    }
}
