//! Decoding in overlapping tiles that are blended where they meet, as `enable_vae_tiling` of diffusers does.
//!
//! A tile is 64×64 latents and overlaps its neighbours by a quarter. Normalisation and attention see one tile at a
//! time, so the result is close to that of decoding at once, not equal to it.

use crate::Error;

/// Side of a tile in latents.
pub(super) const TILE: usize = 64;

/// Distance of two tiles in latents.
const STRIDE: usize = 48;

/// Decodes one tile: latents, their height and width, and which part of how many it is.
type Tile<'a> = dyn FnMut(&[f32], [usize; 2], (usize, usize)) -> Result<Vec<f32>, Error> + 'a;

/// Latents `[height, width, channels]` → pixels `[height · scale, width · scale, 3]`.
pub(super) fn decode(
    latents: &[f32],
    size: [usize; 2],
    scale: usize,
    tile: &mut Tile<'_>,
) -> Result<Vec<f32>, Error> {
    let channels = latents.len() / (size[0] * size[1]);
    let starts = size.map(|side| (0..side).step_by(STRIDE).collect::<Vec<_>>());
    let starts = if size[0] <= TILE && size[1] <= TILE { [vec![0], vec![0]] } else { starts };
    let parts = starts[0].len() * starts[1].len();
    let mut canvas = Canvas::new([size[0] * scale, size[1] * scale], (TILE - STRIDE) * scale);
    for (row, &top) in starts[0].iter().enumerate() {
        for (column, &left) in starts[1].iter().enumerate() {
            let sides = [TILE.min(size[0] - top), TILE.min(size[1] - left)];
            let part = crop(latents, (size[1], channels), [top, left], sides);
            let pixels = tile(&part, sides, (row * starts[1].len() + column, parts))?;
            canvas.blend(
                &pixels,
                [top * scale, left * scale],
                [sides[0] * scale, sides[1] * scale],
            );
        }
    }
    Ok(canvas.pixels)
}

fn crop(
    image: &[f32],
    (width, channels): (usize, usize),
    [top, left]: [usize; 2],
    [height, columns]: [usize; 2],
) -> Vec<f32> {
    let row = |y: usize| {
        let at = ((top + y) * width + left) * channels;
        &image[at..at + columns * channels]
    };
    (0..height).flat_map(row).copied().collect()
}

/// The picture that tiles are laid on, from top left to bottom right.
struct Canvas {
    size: [usize; 2],
    overlap: usize,
    pixels: Vec<f32>,
}

impl Canvas {
    fn new(size: [usize; 2], overlap: usize) -> Self {
        Self { size, overlap, pixels: vec![0.0; size[0] * size[1] * 3] }
    }

    /// Lay a tile down: where it overlaps earlier ones, its share grows linearly from nothing.
    fn blend(&mut self, tile: &[f32], [top, left]: [usize; 2], [height, width]: [usize; 2]) {
        let ramp = |start: usize, at: usize| {
            if start == 0 { 1.0 } else { (at as f32 / self.overlap as f32).min(1.0) }
        };
        for y in 0..height {
            for x in 0..width {
                let share = ramp(top, y) * ramp(left, x);
                let to = ((top + y) * self.size[1] + left + x) * 3;
                let from = (y * width + x) * 3;
                for c in 0..3 {
                    let old = self.pixels[to + c];
                    self.pixels[to + c] = old + share * (tile[from + c] - old);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn tiles_of_a_smooth_picture_leave_no_seam() {
        // A decoder that repeats each latent: tiles then agree, and blending must change nothing.
        let size = [70, 130];
        let latents: Vec<f32> = (0..size[0] * size[1] * 3).map(|i| (i / 3) as f32).collect();
        let mut calls = 0;
        let pixels = decode(&latents, size, 1, &mut |tile, _, (part, parts)| {
            assert!(part < parts);
            calls += 1;
            Ok(tile.to_vec())
        });
        assert_eq!(pixels.unwrap(), latents);
        assert_eq!(calls, 2 * 3);
    }
}
