//! Second moments of a convolution's taps: how much the pixels that they meet at the same time are alike.

use crate::{
    Cpu,
    isa::{Isa, LANES, SimdOp},
    matmul::Conv2d,
    resample::nearest,
};

/// Adds `Σ xₜ · xᵤ` to what is there, for each two taps `t` and `u`, over all pixels of the result. Pixels outside the image are zero.
#[derive(Debug)]
pub struct TapMoments<'a> {
    /// `[batch, height, width, channels]`.
    pub image: &'a [f32],
    /// What reads it.
    pub conv: &'a Conv2d,
    /// `[taps, taps]`.
    pub sums: &'a mut [f32],
}

/// How far one tap is from another that is not before it.
#[derive(Clone, Copy)]
struct Lag {
    down: usize,
    right: isize,
}

impl TapMoments<'_> {
    /// Add all pixels. Sums are the same for any number of threads and on every instruction set.
    ///
    /// # Panics
    ///
    /// Panics if the image or the sums are smaller than the convolution says.
    pub fn run(self, cpu: &Cpu) {
        let Self { image, conv, sums } = self;
        let [height, width] = conv.kernel;
        let taps = height * width;
        assert!(image.len() >= conv.batch * conv.height * conv.width * conv.channels, "all pixels");
        assert_eq!(sums.len(), taps * taps, "sums of all taps");
        let across = |down: usize| if down == 0 { 0 } else { 1 - width as isize }..width as isize;
        let lags = (0..height).flat_map(|down| across(down).map(move |right| Lag { down, right }));
        let lags: Vec<Lag> = lags.collect();
        let mut found = vec![0.0_f64; lags.len() * taps];
        cpu.threads
            .run_pieces(&mut found, taps, |lag, sums| add(cpu, image, conv, lags[lag], sums));
        for (lag, found) in lags.iter().zip(found.chunks_exact(taps)) {
            for (tap, found) in found.iter().enumerate() {
                let (down, right) = (tap / width + lag.down, tap % width);
                let Some(right) = right.checked_add_signed(lag.right) else { continue };
                if down < height && right < width {
                    let other = down * width + right;
                    sums[tap * taps + other] += *found as f32;
                    sums[other * taps + tap] = sums[tap * taps + other];
                }
            }
        }
    }
}

/// Adds the sums of all pairs of taps that are this far from each other, by the first of each pair.
fn add(cpu: &Cpu, image: &[f32], conv: &Conv2d, lag: Lag, sums: &mut [f64]) {
    let ([height, width], taps) = (conv.seen(), conv.kernel[1]);
    let row = conv.width * conv.channels;
    let mut products = vec![0.0; width];
    for (batch, y) in (0..conv.batch).flat_map(|batch| (lag.down..height).map(move |y| (batch, y)))
    {
        let row_at = |y: usize| {
            let first = (batch * conv.height + nearest(y, height, conv.height)) * row;
            &image[first..first + row]
        };
        let (y, rows) = (y - lag.down, [row_at(y - lag.down), row_at(y)]);
        cpu.eval(Products { rows, conv, right: lag.right, to: &mut products });
        for (i, sums) in sums.chunks_exact_mut(taps).enumerate() {
            if !meets(y, i, (conv.pad_top, conv.stride[0], conv.out_height)) {
                continue;
            }
            for (j, sum) in sums.iter_mut().enumerate() {
                let met = |x: &usize| meets(*x, j, (conv.pad_left, conv.stride[1], conv.out_width));
                *sum += (0..width).filter(met).map(|x| f64::from(products[x])).sum::<f64>();
            }
        }
    }
}

/// Whether this tap meets this place for some place of the result.
fn meets(place: usize, tap: usize, (pad, stride, results): (usize, usize, usize)) -> bool {
    let before = (place + pad).checked_sub(tap);
    before.is_some_and(|before| before.is_multiple_of(stride) && before / stride < results)
}

/// Multiplies each pixel of one row with the pixel of another that is to its right.
struct Products<'a> {
    /// `[width, channels]`.
    rows: [&'a [f32]; 2],
    conv: &'a Conv2d,
    right: isize,
    /// One for each pixel that is seen; zero where there is no other.
    to: &'a mut [f32],
}

impl SimdOp for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { rows, conv, right, to } = self;
        let (width, channels) = (to.len(), conv.channels);
        for (x, to) in to.iter_mut().enumerate() {
            *to = 0.0;
            let Some(other) = x.checked_add_signed(right).filter(|other| *other < width) else {
                continue;
            };
            let pixel = |row: usize, x| {
                let first = nearest(x, width, conv.width) * channels;
                &rows[row][first..first + channels]
            };
            let mut sum = isa.splat(0.0);
            for (a, b) in pixel(0, x).chunks(LANES).zip(pixel(1, other).chunks(LANES)) {
                sum = isa.fma(isa.read(a), isa.read(b), sum);
            }
            *to = isa.reduce_add(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TapMoments;
    use crate::{Cpu, isa::Level, matmul::Conv2d, resample::nearest, threads::Threads};

    /// By the definition.
    fn sums(image: &[f32], conv: &Conv2d) -> Vec<f64> {
        let [height, width] = conv.seen();
        let taps = conv.kernel[0] * conv.kernel[1];
        let number = |(batch, y, x, channel): (usize, usize, usize, usize), tap: usize| {
            let y = (y * conv.stride[0] + tap / conv.kernel[1]).checked_sub(conv.pad_top);
            let x = (x * conv.stride[1] + tap % conv.kernel[1]).checked_sub(conv.pad_left);
            let (Some(y), Some(x)) = (y.filter(|y| *y < height), x.filter(|x| *x < width)) else {
                return 0.0;
            };
            let (y, x) = (nearest(y, height, conv.height), nearest(x, width, conv.width));
            f64::from(image[((batch * conv.height + y) * conv.width + x) * conv.channels + channel])
        };
        let mut sums = vec![0.0; taps * taps];
        for batch in 0..conv.batch {
            for (y, x) in
                (0..conv.out_height).flat_map(|y| (0..conv.out_width).map(move |x| (y, x)))
            {
                for channel in 0..conv.channels {
                    let at = (batch, y, x, channel);
                    for (pair, sum) in sums.iter_mut().enumerate() {
                        *sum += number(at, pair / taps) * number(at, pair % taps);
                    }
                }
            }
        }
        sums
    }

    #[test]
    fn sums_are_those_of_the_definition_on_every_instruction_set() {
        let plain = Conv2d {
            batch: 2,
            height: 6,
            width: 5,
            channels: 19,
            out_height: 6,
            out_width: 5,
            kernel: [3, 3],
            stride: [1, 1],
            pad_top: 1,
            pad_left: 1,
            upsampled: None,
        };
        let smaller = Conv2d { out_height: 3, out_width: 3, stride: [2, 2], pad_top: 0, ..plain };
        let larger = Conv2d { out_height: 12, out_width: 10, upsampled: Some([12, 10]), ..plain };
        let image: Vec<f32> =
            (0..2 * 6 * 5 * 19).map(|i| ((i * 37 % 101) as f32 - 30.0) / 40.0).collect();
        for conv in [plain, smaller, larger] {
            let expected = sums(&image, &conv);
            let found = |level| {
                let mut sums = vec![0.0; 81];
                let cpu = Cpu::new(Threads::new(2), level).unwrap();
                TapMoments { image: &image, conv: &conv, sums: &mut sums }.run(&cpu);
                sums
            };
            let first = found(Level::Scalar);
            for (found, expected) in first.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-3, "{found} {expected}");
            }
            for level in Level::available() {
                assert!(found(level) == first, "{level}");
            }
        }
    }
}
