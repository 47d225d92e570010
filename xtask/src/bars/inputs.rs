//! Inputs of one step of SD-Turbo's UNet at 512×512.

use std::path::Path;

use anyhow::{Context, Result};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use crate::model::noise;

/// Writes latents, timestep and text embedding under diffusers' names.
pub(super) fn write(path: &Path) -> Result<()> {
    let sample = noise("sample", vec![1, 4, 64, 64]);
    let text = noise("encoder_hidden_states", vec![1, 77, 1024]);
    let timestep = 999_f32.to_le_bytes();
    let tensors = [
        ("sample", TensorView::new(Dtype::F32, vec![1, 4, 64, 64], &sample)?),
        ("encoder_hidden_states", TensorView::new(Dtype::F32, vec![1, 77, 1024], &text)?),
        ("timestep", TensorView::new(Dtype::F32, vec![1], &timestep)?),
    ];
    serialize_to_file(tensors, None, path)
        .with_context(|| format!("cannot write {}", path.display()))
}
