//! The interval in which a layer's input lies, found before the layer runs.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use kernels::quantize::Range8;

/// Two finite numbers with zero between them. As neither is ever NaN, spans are equal or ordered like whole numbers.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    low: f32,
    high: f32,
}

impl Span {
    /// The interval from `low` to `high`, and zero; `None` if they are not finite.
    pub fn new(low: f32, high: f32) -> Option<Self> {
        // Minus zero and zero are one number, and so must be one span.
        let (low, high) = (low.min(0.0) + 0.0, high.max(0.0) + 0.0);
        (high - low).is_finite().then_some(Self { low, high })
    }

    /// Its ends.
    pub fn ends(self) -> [f32; 2] {
        [self.low, self.high]
    }

    /// The least interval that holds both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// What codes from 0 to `levels` stand for.
    pub(crate) fn range(self, levels: u8) -> Range8 {
        Range8::new(self.low, self.high, levels)
    }

    fn bits(self) -> [u32; 2] {
        self.ends().map(f32::to_bits)
    }
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Span {}

impl Hash for Span {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits().hash(state);
    }
}

impl Ord for Span {
    fn cmp(&self, other: &Self) -> Ordering {
        self.low.total_cmp(&other.low).then(self.high.total_cmp(&other.high))
    }
}

impl PartialOrd for Span {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::Span;

    #[test]
    fn zero_is_always_inside() {
        assert_eq!(Span::new(1.0, 2.0).unwrap().ends(), [0.0, 2.0]);
        assert_eq!(Span::new(-0.0, 2.0), Span::new(0.0, 2.0));
        let both = Span::new(-3.0, -1.0).unwrap().with(Span::new(0.5, 2.0).unwrap());
        assert_eq!(both.ends(), [-3.0, 2.0]);
        for [low, high] in [[f32::NAN, 1.0], [0.0, f32::INFINITY], [f32::MIN, f32::MAX]] {
            assert!(Span::new(low, high).is_none_or(|span| !span.ends()[0].is_nan()));
        }
        assert_eq!(Span::new(0.0, f32::INFINITY), None);
    }
}
