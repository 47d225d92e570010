//! Definitions of normalisations and of resampling.

use super::{activation, each, put, read};
use crate::{
    norm::{GroupNorm, LayerNorm, Normed},
    resample::Nearest,
};

/// The definition of [`GroupNorm`].
///
/// # Panics
///
/// If it is to write codes: those are defined by the numbers and their range.
pub fn group_norm(op: GroupNorm<'_>) {
    let GroupNorm { input, channels, batch, pixels, groups, eps, gamma, beta, .. } = op;
    let Normed::Real(mut output) = op.output else { panic!("numbers are defined here") };
    let size = channels / groups;
    let x = |row: usize, channel: usize| read(&input, row * channels + channel);
    each(batch, groups, |image, group| {
        let elements = || {
            (image * pixels..(image + 1) * pixels).flat_map(move |row| {
                (group * size..(group + 1) * size).map(move |channel| (row, channel))
            })
        };
        let count = (pixels * size) as f64;
        let mean = elements().map(|(row, channel)| x(row, channel)).sum::<f64>() / count;
        let squares = elements().map(|(row, channel)| (x(row, channel) - mean).powi(2));
        let deviation = (squares.sum::<f64>() / count + f64::from(eps)).sqrt();
        for (row, channel) in elements() {
            let y = affine((x(row, channel) - mean) / deviation, (gamma, beta), channel);
            put(&mut output, (row, channel), activation(op.activation, y));
        }
    });
}

/// The definition of [`LayerNorm`].
pub fn layer_norm(op: LayerNorm<'_>) {
    let LayerNorm { input, rows, channels, stride, eps, gamma, beta, mut output } = op;
    for row in 0..rows {
        let x = |channel: usize| f64::from(input[row * stride + channel]);
        let count = channels as f64;
        let mean = (0..channels).map(x).sum::<f64>() / count;
        let variance = (0..channels).map(|i| (x(i) - mean).powi(2)).sum::<f64>() / count;
        for channel in 0..channels {
            let y = (x(channel) - mean) / (variance + f64::from(eps)).sqrt();
            put(&mut output, (row, channel), affine(y, (gamma, beta), channel));
        }
    }
}

/// `x · gamma + beta` of a channel.
fn affine(x: f64, (gamma, beta): (Option<&[f32]>, Option<&[f32]>), channel: usize) -> f64 {
    let gamma = gamma.map_or(1.0, |gamma| f64::from(gamma[channel]));
    x * gamma + beta.map_or(0.0, |beta| f64::from(beta[channel]))
}

/// The definition of [`Nearest`].
pub fn nearest(op: Nearest<'_>) {
    let Nearest { input, batch, size: [height, width], channels, out_size, mut output } = op;
    let [out_height, out_width] = out_size;
    each(batch * out_height, out_width, |line, x| {
        let (image, y) = (line / out_height, line % out_height);
        let from_y = (y as f32 * (height as f32 / out_height as f32)) as usize;
        let from_x = (x as f32 * (width as f32 / out_width as f32)) as usize;
        let from = (image * height + from_y.min(height - 1)) * width + from_x.min(width - 1);
        for channel in 0..channels {
            let value = read(&input, from * channels + channel);
            put(&mut output, (line * out_width + x, channel), value);
        }
    });
}
