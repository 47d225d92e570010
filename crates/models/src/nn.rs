//! Layers: each is a struct of weights, a `load` that checks their shapes, and a `forward` that reads like its formula.

mod attention;
mod conv;
mod feed_forward;
mod linear;
mod norm;
mod resample;
mod resnet;

pub use attention::Attention;
pub(crate) use attention::AttentionConfig;
pub use conv::{Conv2d, Window};
pub use feed_forward::FeedForward;
pub use linear::{Bias, FACTORS, Linear};
pub use norm::{GroupNorm, LayerNorm};
pub use resample::{Downsample, Upsample};
pub use resnet::{Resnet, ResnetConfig};
