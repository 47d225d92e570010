//! The number format of one layer: a small closed algebra.
//!
//! Written as `w8a8`, `w4a8`, `w2a16`: bits of the weights, bits of the activations. Weights of 4 and 2
//! bits have a unit for every 64 input channels unless `c` says that a whole output channel shares
//! one: `w4ca8`. An `s` behind the bits of activations says that their range is known before: `w8a8s`.

use std::fmt;
use std::str::FromStr;

/// How a layer's weights and the activations that meet them are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scheme {
    /// The weights.
    pub weights: WeightScheme,
    /// The activations.
    pub activations: ActivationScheme,
}

/// Whole numbers, symmetric about zero, times a real unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightScheme {
    /// Bits of a weight.
    pub bits: WeightBits,
    /// Which weights share a unit.
    pub granularity: Granularity,
}

/// Bits of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WeightBits {
    /// The four odd levels −3, −1, 1, 3.
    Two,
    /// −8 to 7.
    Four,
    /// −127 to 127.
    Eight,
}

/// Which weights share a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Granularity {
    /// All of an output channel.
    Channel,
    /// 64 input channels of one tap of an output channel; the unit is that of the channel times a
    /// small whole number.
    Group,
}

/// How activations are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActivationScheme {
    /// As real numbers, in the precision of the plan.
    Float,
    /// As codes from 0 to `levels`, whose range is found for each token of a linear layer and for
    /// each image of a convolution.
    Dynamic {
        /// The greatest code: 255 for 8 bits, 15 for 4.
        levels: u8,
    },
    /// As codes from 0 to `levels`, in the range that the plan has for the layer, the same for all
    /// that it ever reads.
    Static {
        /// The greatest code.
        levels: u8,
    },
}

impl Scheme {
    /// Whether a layer needs to know the range of its input before.
    pub fn is_static(self) -> bool {
        self.activations.is_static()
    }
}

impl ActivationScheme {
    /// Whether a layer needs to know the range of its input before.
    pub fn is_static(self) -> bool {
        matches!(self, Self::Static { .. })
    }
}

impl WeightBits {
    /// The greatest magnitude of a code.
    pub fn most(self) -> i32 {
        match self {
            Self::Two => 3,
            Self::Four => 7,
            Self::Eight => 127,
        }
    }

    /// The number.
    pub fn count(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

impl fmt::Display for WeightScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match (self.bits, self.granularity) {
            (WeightBits::Four | WeightBits::Two, Granularity::Channel) => "c",
            _ => "",
        };
        write!(f, "w{}{mark}", self.bits.count())
    }
}

impl FromStr for WeightScheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (bits, granularity) = match text {
            "w8" => (WeightBits::Eight, Granularity::Channel),
            "w4" => (WeightBits::Four, Granularity::Group),
            "w4c" => (WeightBits::Four, Granularity::Channel),
            "w2" => (WeightBits::Two, Granularity::Group),
            "w2c" => (WeightBits::Two, Granularity::Channel),
            _ => return Err(format!("unknown weights {text:?}, use w8, w4, w2, w4c or w2c")),
        };
        Ok(Self { bits, granularity })
    }
}

impl fmt::Display for ActivationScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "a16",
            Self::Dynamic { levels: 15 } => "a4",
            Self::Dynamic { .. } => "a8",
            Self::Static { levels: 15 } => "a4s",
            Self::Static { .. } => "a8s",
        })
    }
}

impl FromStr for ActivationScheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "a16" => Self::Float,
            "a8" => Self::Dynamic { levels: 255 },
            "a4" => Self::Dynamic { levels: 15 },
            "a8s" => Self::Static { levels: 255 },
            "a4s" => Self::Static { levels: 15 },
            _ => return Err(format!("unknown activations {text:?}, use a16, a8, a4, a8s or a4s")),
        })
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.weights, self.activations)
    }
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || {
            format!(
                "unknown scheme {text:?}, use w8a8, w4a8, w2a8, w8a16, w4a16, w2a16, w4ca8 or w8a8s"
            )
        };
        let (weights, activations) = text.split_at(text.find('a').ok_or_else(fault)?);
        let weights = weights.parse().map_err(|_| fault())?;
        let activations = activations.parse().map_err(|_| fault())?;
        Ok(Self { weights, activations })
    }
}

#[cfg(test)]
mod tests {
    use super::Scheme;

    #[test]
    fn names_are_read_back() {
        for name in ["w8a8", "w8a16", "w8a4", "w4a8", "w4ca8", "w2a16", "w2ca4", "w8a8s", "w4a4s"] {
            assert_eq!(name.parse::<Scheme>().unwrap().to_string(), name);
        }
        for name in ["", "w", "w8", "a8", "w3a8", "w8a7", "w8ca8", "8a8", "w8a16s", "w8sa8"] {
            assert!(name.parse::<Scheme>().unwrap_err().contains("use w8a8"), "{name}");
        }
    }
}
