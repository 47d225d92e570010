//! Levels: the instruction sets by name, and the one that was chosen at run time.

use std::{fmt, str::FromStr};

#[cfg(target_arch = "aarch64")]
use super::Neon;
#[cfg(target_arch = "x86_64")]
use super::{Amx, Avx2, Avx512, Avx512Bf16, Avx512Vnni, AvxVnni, tiles::With};
use super::{
    Bf16Op, Int8Op, Int16OnlyOp, Int16Op, Scalar, SimdOp,
    tiles::{SoftTiles, TileOp},
};

/// The name of an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plain Rust that multiplies tiles as AMX does, so that this way can be tested on every CPU.
    ScalarTiles,
    /// Plain Rust; every CPU has it.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// [`Level::Avx2`] with products of bytes.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, VL and DQ.
    Avx512,
    /// [`Level::Avx512`] with products of bytes.
    Avx512Vnni,
    /// [`Level::Avx512Vnni`] with products of bf16 pairs.
    Avx512Bf16,
    /// [`Level::Avx512Bf16`] with products of whole tiles, of bytes and of bf16 pairs.
    Amx,
    /// 64-bit ARM.
    Neon,
}

impl Level {
    /// Every level, the slowest first.
    pub const ALL: [Self; 9] = [
        Self::ScalarTiles,
        Self::Scalar,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Avx512Bf16,
        Self::Amx,
        Self::Neon,
    ];

    /// The fastest level of this CPU.
    ///
    /// Intel's cores multiply no more bf16 pairs at a time than `f32` numbers, of which minimal filtering needs fewer: there
    /// bf16 is worth its instructions in tiles alone.
    pub fn detect() -> Self {
        let is_slow = |level: &Self| *level == Self::Avx512Bf16 && is_intel();
        let level = Self::available().into_iter().rfind(|level| !is_slow(level));
        level.unwrap_or(Self::Scalar)
    }

    /// The levels of this CPU, the slowest first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|&level| Simd::new(level).is_some()).collect()
    }

    /// The name that [`Level::from_str`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScalarTiles => "scalartiles",
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
            Self::Neon => "neon",
        }
    }
}

/// Whether Intel made this CPU.
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    let words = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
    words.as_flattened() == b"GenuineIntel"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

impl Level {
    /// What multiplies bytes on this level.
    pub fn int8(self) -> &'static str {
        match self {
            Self::ScalarTiles | Self::Scalar => "plain code",
            Self::Avx2 | Self::Avx512 => "avx2, exact in 16 bits",
            Self::AvxVnni => "avxvnni",
            Self::Avx512Vnni | Self::Avx512Bf16 => "avx512vnni",
            Self::Amx => "amx",
            Self::Neon => "neon, exact in 16 bits",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown instruction set {0:?}; use scalar, avx2, avxvnni, avx512, avx512vnni, avx512bf16, amx or neon"
)]
pub struct UnknownLevel(pub String);

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, UnknownLevel> {
        let found = Self::ALL.into_iter().find(|level| level.name() == name);
        found.ok_or_else(|| UnknownLevel(name.to_owned()))
    }
}

/// A token of some level: the proof that this CPU has it.
#[derive(Clone, Copy, Debug)]
pub enum Simd {
    /// The token of [`Level::ScalarTiles`].
    ScalarTiles(Scalar),
    /// The token of [`Level::Scalar`].
    Scalar(Scalar),
    /// The token of [`Level::Avx2`].
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// The token of [`Level::AvxVnni`].
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// The token of [`Level::Avx512`].
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// The token of [`Level::Avx512Vnni`].
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    /// The token of [`Level::Avx512Bf16`].
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512Bf16),
    /// The tokens of [`Level::Amx`].
    #[cfg(target_arch = "x86_64")]
    Amx(Avx512Bf16, Amx),
    /// The token of [`Level::Neon`].
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Simd {
    /// The token of `level`, if this CPU has it.
    pub fn new(level: Level) -> Option<Self> {
        match level {
            Level::ScalarTiles => Some(Self::ScalarTiles(Scalar)),
            Level::Scalar => Some(Self::Scalar(Scalar)),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => AvxVnni::detect().map(Self::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Avx512::detect().map(Self::Avx512),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => Avx512Vnni::detect().map(Self::Avx512Vnni),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => Avx512Bf16::detect().map(Self::Avx512Bf16),
            #[cfg(target_arch = "x86_64")]
            Level::Amx => Some(Self::Amx(Avx512Bf16::detect()?, Amx::detect()?)),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => Neon::detect().map(Self::Neon),
            _ => None,
        }
    }

    /// The level that this token proves.
    pub fn level(self) -> Level {
        match self {
            Self::ScalarTiles(_) => Level::ScalarTiles,
            Self::Scalar(_) => Level::Scalar,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Level::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => Level::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Level::Avx512,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => Level::Avx512Vnni,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => Level::Avx512Bf16,
            #[cfg(target_arch = "x86_64")]
            Self::Amx(..) => Level::Amx,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => Level::Neon,
        }
    }

    /// Evaluate `op` with this instruction set.
    pub fn eval<O: SimdOp>(self, op: O) -> O::Output {
        match self {
            Self::ScalarTiles(isa) | Self::Scalar(isa) => op.eval(isa),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(isa) => isa.eval(op),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(isa) => isa.without_vnni().eval(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(isa) => isa.eval(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(isa) => isa.without_vnni().eval(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(isa) | Self::Amx(isa, _) => isa.eval(op),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(isa) => isa.eval(op),
        }
    }

    /// Evaluate `op` if this instruction set multiplies bf16 pairs, else give it back.
    ///
    /// # Errors
    ///
    /// Returns `op` itself, so that the caller can take another way.
    pub fn eval_bf16<O: Bf16Op>(self, op: O) -> Result<O::Output, O> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(isa) | Self::Amx(isa, _) => Ok(isa.eval_bf16(op)),
            _ => Err(op),
        }
    }

    /// Evaluate `op` with the products of bytes of this instruction set. Those of AVX-512 without
    /// VNNI are no faster than those of AVX2, so it takes these.
    pub fn eval_int8<O: Int8Op>(self, op: O) -> O::Output {
        match self {
            Self::ScalarTiles(isa) | Self::Scalar(isa) => op.eval(isa),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(isa) => isa.eval_int8(op),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(isa) => isa.eval_int8(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(isa) => isa.avx2().eval_int8(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(isa) => isa.eval_int8(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(isa) | Self::Amx(isa, _) => isa.eval_int8(op),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(isa) => isa.eval_int8(op),
        }
    }

    /// Evaluate `op` if this instruction set multiplies numbers of 16 bits, else give it back.
    ///
    /// # Errors
    ///
    /// Returns `op` itself, so that the caller can take another way.
    pub fn eval_int16<O: Int16Op>(self, op: O) -> Result<O::Output, O> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(isa) => Ok(isa.eval_int16(op)),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(isa) => Ok(isa.eval_int16(op)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(isa) => Ok(isa.avx2().eval_int16(op)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(isa) => Ok(isa.eval_int16(op)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(isa) | Self::Amx(isa, _) => Ok(isa.eval_int16(op)),
            _ => Err(op),
        }
    }

    /// Evaluate `op` if this instruction set multiplies bytes in lanes of 16 bits only, else give it back.
    ///
    /// # Errors
    ///
    /// Returns `op` itself, so that the caller can take another way.
    pub fn eval_int16_only<O: Int16OnlyOp>(self, op: O) -> Result<O::Output, O> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(isa) => Ok(isa.eval_int16_only(op)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(isa) => Ok(isa.avx2().eval_int16_only(op)),
            _ => Err(op),
        }
    }

    /// Evaluate `op` with the tiles of this instruction set, if it has some; say whether it has.
    pub(crate) fn eval_tiles<O: TileOp>(self, op: O) -> bool {
        match self {
            Self::ScalarTiles(isa) => op.eval(isa, SoftTiles),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(isa, tiles) => isa.eval_int8(With(op, tiles)),
            _ => return false,
        }
        true
    }

    /// Whether whole tiles are multiplied.
    pub fn has_tiles(self) -> bool {
        matches!(self.level(), Level::Amx | Level::ScalarTiles)
    }

    /// Whether [`Simd::eval_int16`] evaluates.
    pub fn has_int16(self) -> bool {
        !matches!(self.level(), Level::ScalarTiles | Level::Scalar | Level::Neon)
    }

    /// Whether [`Simd::eval_int16_only`] evaluates.
    pub fn has_int16_only(self) -> bool {
        matches!(self.level(), Level::Avx2 | Level::Avx512)
    }

    /// Whether [`Simd::eval_bf16`] evaluates.
    pub fn has_bf16_dot(self) -> bool {
        matches!(self.level(), Level::Avx512Bf16 | Level::Amx)
    }
}

/// Evaluate `op` once per instruction set that this CPU has, for tests and benchmarks.
pub fn run_on_every_isa<O: SimdOp + Clone>(op: &O) -> Vec<(Level, O::Output)> {
    let tokens = Level::ALL.into_iter().filter_map(Simd::new);
    tokens.map(|simd| (simd.level(), simd.eval(op.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Level, Simd};

    #[test]
    fn names_are_read_back() {
        for level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        assert!("sse9".parse::<Level>().unwrap_err().to_string().contains("use scalar"));
    }

    #[test]
    fn the_scalar_level_is_always_there() {
        assert_eq!(Level::available()[..2], [Level::ScalarTiles, Level::Scalar]);
        assert_eq!(Simd::new(Level::detect()).map(Simd::level), Some(Level::detect()));
    }
}
