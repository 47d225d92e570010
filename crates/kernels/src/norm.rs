//! Normalisation over groups of channels and over rows.

mod group;
mod layer;

pub use group::{GroupNorm, Normed, scratch_bytes};
pub use layer::LayerNorm;
