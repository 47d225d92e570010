//! Sizes of a value, outermost first: `[batch, height, width, channels]`, `[batch, tokens, channels]`, ….

use std::fmt;
use std::ops::Deref;

/// Up to four sizes, outermost first. Channels are last and contiguous.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    sizes: [usize; 4],
    rank: usize,
}

impl Shape {
    /// A shape of these sizes.
    ///
    /// # Panics
    ///
    /// If there are more than four: no operation of this engine records such a value.
    pub fn new(sizes: &[usize]) -> Self {
        assert!(sizes.len() <= 4, "a value has at most four dimensions");
        let mut all = [1; 4];
        all[..sizes.len()].copy_from_slice(sizes);
        Self { sizes: all, rank: sizes.len() }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.iter().product()
    }

    /// Size of the last dimension; 1 for a scalar.
    pub fn channels(&self) -> usize {
        self.last().copied().unwrap_or(1)
    }

    /// Number of rows: all elements over the channels.
    pub fn rows(&self) -> usize {
        self.iter().rev().skip(1).product()
    }

    /// The first dimension; 1 for a scalar.
    pub fn batch(&self) -> usize {
        self.first().copied().unwrap_or(1)
    }

    /// The same rows with another number of channels.
    pub fn with_channels(mut self, channels: usize) -> Self {
        if self.rank > 0 {
            self.sizes[self.rank - 1] = channels;
        }
        self
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.sizes[..self.rank]
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Self {
        Self::new(&sizes)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
