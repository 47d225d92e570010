//! Reproducible values for a tensor, the same on every machine.
//!
//! The stream depends on the tensor's name alone, so that a tensor keeps its values when others
//! are added. Four 16-bit numbers from one 64-bit draw are summed: close enough to a normal
//! distribution, and fast enough that writing billions of values is bound by the disk.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::list::Tensor;

/// Standard deviation of the sum of four 16-bit numbers, and its mean.
const SUM_DEVIATION: f32 = 37_837.226;
const SUM_MEAN: f32 = 131_070.0;
const CHUNK: usize = 4096;

/// All values of `tensor` as little-endian f16.
pub(crate) fn values(tensor: &Tensor) -> Vec<u8> {
    let count = tensor.count();
    let mut bytes = Vec::with_capacity(2 * count);
    let mut state = seed(&tensor.name);
    let scale = tensor.deviation / SUM_DEVIATION;
    let shift = tensor.mean - SUM_MEAN * scale;
    let (mut wide, mut narrow) = ([0_f32; CHUNK], [f16::ZERO; CHUNK]);
    for start in (0..count).step_by(CHUNK) {
        let length = CHUNK.min(count - start);
        for value in &mut wide[..length] {
            *value = sum_of_four(next(&mut state)) * scale + shift;
        }
        narrow[..length].convert_from_f32_slice(&wide[..length]);
        bytes.extend(narrow[..length].iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

fn sum_of_four(draw: u64) -> f32 {
    let pairs = (draw & 0x0000_ffff_0000_ffff) + ((draw >> 16) & 0x0000_ffff_0000_ffff);
    ((pairs & 0xffff_ffff) + (pairs >> 32)) as f32
}

/// `SplitMix64` (Steele, Lea and Flood 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a of the name.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_asked_for() {
        let tensor =
            Tensor { name: "a".to_owned(), shape: vec![300, 400], mean: 1.0, deviation: 0.25 };
        let values: Vec<f32> = values(&tensor)
            .chunks_exact(2)
            .map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32())
            .collect();
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
        assert!((mean - 1.0).abs() < 0.005, "mean {mean}");
        assert!((square.sqrt() - 0.25).abs() < 0.005, "deviation {}", square.sqrt());
    }

    #[test]
    fn names_decide_the_values() {
        let tensor = |name: &str| Tensor {
            name: name.to_owned(),
            shape: vec![8],
            mean: 0.0,
            deviation: 1.0,
        };
        assert_eq!(values(&tensor("a")), values(&tensor("a")));
        assert_ne!(values(&tensor("a")), values(&tensor("b")));
    }
}
