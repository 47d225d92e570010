//! CLIP: texts and pictures → embeddings that can be compared.
//!
//! Stable Diffusion reads the text tower, and of it layers that CLIP itself does not end with; the vision tower and the
//! whole model judge pictures.

mod config;
mod encoder;
mod model;
mod text;
mod vision;

pub use config::{ClipConfig, TextConfig, VisionConfig};
pub use model::{ClipModel, normalized, similarity};
pub use text::{TextModel, TextOutput};
pub use vision::{VisionModel, VisionOutput};
