//! Definitions of matrix products and attention.

use half::{bf16, f16};

use super::{activation, each, put, read};
use crate::{
    activation::Activation,
    attention::{Attention, Heads, Mask, Scores},
    format::{PANEL, PanelFormat, PanelLayout, Panels, int::GROUP},
    matmul::{Conv2d, Epilogue, Gate, Geometry, Matmul},
};

/// The weight of lane `lane` for `channel` at `tap`.
pub fn weight(panels: &Panels<'_>, lane: usize, (tap, channel): (usize, usize)) -> f32 {
    let layout = &panels.layout;
    let (panel, lane) = (lane / PANEL, lane % PANEL);
    let width = layout.width(panel);
    let k = tap * layout.padded_channels() + channel;
    let index = match layout.format {
        PanelFormat::F32 | PanelFormat::F16 => k * width + lane,
        PanelFormat::Bf16 => (k / 2 * width + lane) * 2 + k % 2,
        format => return integer(panels, format, (panel, lane), (tap, channel)),
    };
    let size = layout.format.bits() / 8;
    let bytes = &panels.bytes[layout.range(panel).start + index * size..][..size];
    let half = u16::from_ne_bytes([bytes[0], bytes[1]]);
    match layout.format {
        PanelFormat::F32 => f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        PanelFormat::F16 => f16::from_bits(half).to_f32(),
        PanelFormat::Bf16 => bf16::from_bits(half).to_f32(),
        _ => unreachable!("integers were dealt with before"),
    }
}

/// The integer of a lane, its multiplier included.
fn integer(
    panels: &Panels<'_>,
    format: PanelFormat,
    (panel, lane): (usize, usize),
    (tap, channel): (usize, usize),
) -> f32 {
    let layout = &panels.layout;
    let (k, bits) = (tap * layout.channels + channel, format.bits());
    let quads = 8 / bits;
    let at = (k / 4 / quads * layout.width(panel) + lane) * 4 + k % 4;
    let byte = panels.bytes[layout.range(panel).start + at];
    let stored = byte >> (k / 4 % quads * bits);
    let code = match format {
        PanelFormat::Int4 => i32::from(stored & 15) - 8,
        PanelFormat::Int2 => 2 * i32::from(stored & 3) - 3,
        _ => i32::from(stored.cast_signed()),
    };
    let group = tap * layout.channels.div_ceil(GROUP) + channel / GROUP;
    let multiplier = panels
        .multipliers
        .map_or(1, |all| i32::from(all[(panel * layout.groups() + group) * PANEL + lane]));
    (code * multiplier) as f32
}

/// The definition of [`Matmul`].
pub fn matmul(op: Matmul<'_>) {
    let Matmul { input, geometry, weights, epilogue, mut output, .. } = op;
    let PanelLayout { n, taps, channels, .. } = weights.layout;
    let rows = geometry.rows();
    let unpacked: Vec<f32> = (0..taps * channels * n)
        .map(|i| weight(&weights, i % n, (i / n / channels, i / n % channels)))
        .collect();
    for row in 0..rows {
        let mut sums = vec![0.0; n];
        for tap in 0..taps {
            let Some(start) = input_row(&geometry, row, tap) else { continue };
            for channel in 0..channels {
                // Codes count from their zero, so that what lies outside an image adds nothing.
                let x = read(&input, start + channel) - zero_of(&epilogue, row);
                let weights = &unpacked[(tap * channels + channel) * n..][..n];
                for (sum, &w) in sums.iter_mut().zip(weights) {
                    *sum += x * f64::from(w);
                }
            }
        }
        if let Some(dequantize) = epilogue.dequantize {
            let unit = dequantize.ranges.map_or(1.0, |ranges| f64::from(ranges.of(row).scale));
            for (sum, &scale) in sums.iter_mut().zip(dequantize.scales) {
                *sum *= unit * f64::from(scale);
            }
        }
        let columns = if let Gate::Geglu { hidden } = epilogue.gate { hidden } else { n };
        for column in 0..columns {
            put(&mut output, (row, column), finish(&epilogue, &sums, (row, column)));
        }
    }
}

/// The code of zero for what an output row reads.
fn zero_of(epilogue: &Epilogue<'_>, row: usize) -> f64 {
    let ranges = epilogue.dequantize.and_then(|dequantize| dequantize.ranges);
    ranges.map_or(0.0, |ranges| f64::from(ranges.of(row).zero))
}

fn finish(epilogue: &Epilogue<'_>, sums: &[f64], (row, column): (usize, usize)) -> f64 {
    let bias = |index: usize| epilogue.bias.map_or(0.0, |bias| f64::from(bias[index]));
    let y = if let Gate::Geglu { hidden } = epilogue.gate {
        let lane = column / 16 * 32 + column % 16;
        let gate = sums[lane + 16] + bias(hidden + column);
        (sums[lane] + bias(column)) * activation(Activation::Gelu, gate)
    } else {
        let mut y = sums[column] + bias(column);
        if let Some(shift) = epilogue.shift {
            y += f64::from(shift.values[row / shift.rows_per_batch * shift.stride + column]);
        }
        if let Some(residual) = epilogue.residual {
            y += read(&residual.values, row * residual.stride + column);
        }
        activation(epilogue.activation, y)
    };
    y * f64::from(epilogue.scale.unwrap_or(1.0))
}

/// Where the input row starts that an output row reads at a tap.
fn input_row(geometry: &Geometry, row: usize, tap: usize) -> Option<usize> {
    let conv: Conv2d = match *geometry {
        Geometry::Rows { stride, .. } => return Some(row * stride),
        Geometry::Conv(conv) => conv,
    };
    let [height, width] = conv.seen();
    let (line, x) = (row / conv.out_width, row % conv.out_width);
    let (batch, y) = (line / conv.out_height, line % conv.out_height);
    let y = (y * conv.stride[0] + tap / conv.kernel[1]).checked_sub(conv.pad_top)?;
    let x = (x * conv.stride[1] + tap % conv.kernel[1]).checked_sub(conv.pad_left)?;
    if y >= height || x >= width {
        return None;
    }
    let y = (y as f32 * (conv.height as f32 / height as f32)) as usize;
    let x = (x as f32 * (conv.width as f32 / width as f32)) as usize;
    Some(((batch * conv.height + y) * conv.width + x) * conv.channels)
}

/// The definition of [`Attention`].
pub fn attention(op: Attention<'_>) {
    let Attention { shape, q, k, v, scores, scale, mask, mut output, .. } = op;
    each(shape.batch * shape.heads, shape.tokens_q, |sequence, query| {
        let (batch, head) = (sequence / shape.heads, sequence % shape.heads);
        let start =
            |heads: &Heads<'_>, row| heads.offset + row * heads.stride + head * shape.head_dim;
        let from = start(&q, batch * shape.tokens_q + query);
        let seen = match mask {
            Mask::None => shape.tokens_k,
            Mask::Causal => shape.tokens_k.min(query + 1),
        };
        let row = |heads: &Heads<'_>, from: usize| -> Vec<f64> {
            (from..from + shape.head_dim).map(|i| read(&heads.values, i)).collect()
        };
        let keys: Vec<Vec<f64>> = (0..shape.tokens_k)
            .map(|key| row(&k, start(&k, batch * shape.tokens_k + key)))
            .collect();
        let (query_row, keys) = match scores {
            Scores::Real => (row(&q, from), keys),
            Scores::Int8 => (rounded(&row(&q, from)), centered(&keys)),
        };
        let product = |key: &Vec<f64>| query_row.iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
        let scores: Vec<f64> =
            keys[..seen].iter().map(|key| product(key) * f64::from(scale)).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        for i in 0..shape.head_dim {
            let terms = weights.iter().enumerate().map(|(key, weight)| {
                weight * read(&v.values, start(&v, batch * shape.tokens_k + key) + i)
            });
            let place = (batch * shape.tokens_q + query, head * shape.head_dim + i);
            put(&mut output, place, terms.sum::<f64>() / total);
        }
    });
}

/// Keys relative to their mean, rounded as [`rounded`] does; see [`Scores::Int8`].
pub fn centered(keys: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mean = |i: usize| keys.iter().map(|key| key[i]).sum::<f64>() / keys.len() as f64;
    let mean: Vec<f64> = (0..keys.first().map_or(0, Vec::len)).map(mean).collect();
    let center = |key: &Vec<f64>| key.iter().zip(&mean).map(|(x, mean)| x - mean).collect();
    keys.iter().map(center).map(|key: Vec<f64>| rounded(&key)).collect()
}

/// What the nearest of 255 codes stands for, in a unit of the row.
pub fn rounded(row: &[f64]) -> Vec<f64> {
    let most = row.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    let unit = if most > 0.0 { most / 127.0 } else { 1.0 };
    row.iter().map(|x| (x / unit).round_ties_even() * unit).collect()
}
