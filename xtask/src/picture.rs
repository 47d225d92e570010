//! Reading and comparing PNG pictures.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::console::say;

/// An 8-bit RGB picture.
pub(crate) struct Picture {
    size: (u32, u32),
    levels: Vec<u8>,
}

impl Picture {
    /// Reads an 8-bit RGB PNG.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut reader = png::Decoder::new(BufReader::new(file)).read_info()?;
        let size = reader.output_buffer_size().context("picture too large")?;
        let mut levels = vec![0; size];
        let frame = reader.next_frame(&mut levels)?;
        let kind = (frame.color_type, frame.bit_depth);
        let wanted = (png::ColorType::Rgb, png::BitDepth::Eight);
        ensure!(kind == wanted, "{} is not 8-bit RGB", path.display());
        levels.truncate(frame.buffer_size());
        Ok(Self { size: (frame.width, frame.height), levels })
    }

    /// Standard deviation of all levels, of 255.
    pub(crate) fn deviation(&self) -> f64 {
        let count = self.levels.len() as f64;
        let mean = self.levels.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
        let square = self.levels.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
        (square / count).sqrt()
    }

    /// Largest and mean difference of levels.
    pub(crate) fn difference(&self, other: &Self) -> Result<(u8, f64)> {
        ensure!(self.size == other.size, "sizes differ: {:?} and {:?}", self.size, other.size);
        let pairs = self.levels.iter().zip(&other.levels);
        let differences: Vec<u8> = pairs.map(|(a, b)| a.abs_diff(*b)).collect();
        let sum: f64 = differences.iter().map(|d| f64::from(*d)).sum();
        let largest = differences.iter().copied().max().unwrap_or_default();
        Ok((largest, sum / differences.len().max(1) as f64))
    }
}

/// `cargo xtask compare`: fails if two pictures differ by more than `limit` levels, or are flat.
pub(crate) fn compare(first: &Path, second: &Path, limit: u8) -> Result<()> {
    let (first, second) = (Picture::open(first)?, Picture::open(second)?);
    let (largest, mean) = first.difference(&second)?;
    let deviation = first.deviation();
    say(&format!("largest difference {largest}, mean {mean:.4}, deviation {deviation:.1} of 255"));
    ensure!(largest <= limit, "pictures differ by {largest} levels, more than {limit}");
    ensure!(deviation > 10.0, "a flat picture proves nothing");
    Ok(())
}
