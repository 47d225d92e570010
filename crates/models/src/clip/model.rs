//! Both towers: how well a text fits a picture.

use tensor::Weight;

use super::{ClipConfig, TextModel, VisionModel};
use crate::{Error, Params};

/// `CLIPModel`: two towers that project into one space.
#[derive(Clone, Debug)]
pub struct ClipModel {
    /// The text tower.
    pub text_model: TextModel,
    /// The vision tower.
    pub vision_model: VisionModel,
    logit_scale: Weight,
}

impl ClipModel {
    /// The model at this place.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another than the configuration says.
    pub fn load(params: &Params, config: &ClipConfig) -> Result<Self, Error> {
        let projection = Some(config.projection_dim);
        Ok(Self {
            text_model: TextModel::with_projection(params, &config.text, projection)?,
            vision_model: VisionModel::with_projection(params, &config.vision, projection)?,
            logit_scale: params.weight("logit_scale", &[])?,
        })
    }

    /// `exp(logit_scale)`, by which cosines are multiplied.
    ///
    /// # Errors
    ///
    /// If the checkpoint cannot be read.
    pub fn scale(&self) -> Result<f32, Error> {
        Ok(self.logit_scale.view()?.to_f32().first().copied().unwrap_or(0.0).exp())
    }
}

/// An embedding over its length.
pub fn normalized(embedding: &[f32]) -> Vec<f32> {
    let square: f64 = embedding.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    embedding.iter().map(|&x| (f64::from(x) / square.sqrt()) as f32).collect()
}

/// Cosine of the angle between two embeddings, times [`ClipModel::scale`]: the logit of `CLIPModel`.
pub fn similarity(image_embeds: &[f32], text_embeds: &[f32], scale: f32) -> f32 {
    let (image, text) = (normalized(image_embeds), normalized(text_embeds));
    let cosine: f64 = image.iter().zip(&text).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    (cosine * f64::from(scale)) as f32
}

#[cfg(test)]
mod tests {
    use super::similarity;

    #[test]
    fn similarity_is_a_scaled_cosine() {
        assert!((similarity(&[3.0, 4.0], &[4.0, 3.0], 10.0) - 9.6).abs() < 1e-5);
    }
}
