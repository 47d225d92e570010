//! Which of a layer's effects on a picture is measured.
//!
//! What a picture shows comes from the prompt, through the text encoders, cross-attention and the feed-forward networks
//! beside it: these layers are measured by the likeness of pictures (SSIM). All others of the UNet form how it looks, and
//! are measured by the error of what the network computes (SQNR). The decoder changes nothing but pictures, so its layers
//! are measured by them, too, and share the content group's bytes: scores of one kind can be added up.

use std::fmt;

/// One of two sets of layers, each with its own score and its own budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Text encoders, cross-attention and feed-forward: what is shown. The decoder, too.
    Content,
    /// All others of the UNet: how it looks.
    Quality,
}

/// The component whose layers are in both groups.
const UNET: &str = "unet";

/// Modules of a transformer block that carry content, as checkpoints call them.
const CONTENT: &[&str] = &["attn2", "ff"];

impl Group {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Content, Self::Quality];

    /// The group of a layer of a component.
    pub fn of_component(component: &str, layer: &str) -> Self {
        if component == UNET { Self::of(layer) } else { Self::Content }
    }

    /// The group of a layer of the UNet, from the modules on the way to it: whole parts of its name, never a piece of one.
    pub fn of(layer: &str) -> Self {
        if layer.split('.').any(|module| CONTENT.contains(&module)) {
            Self::Content
        } else {
            Self::Quality
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Quality => "quality",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Group::{self, Content, Quality};

    #[test]
    fn whole_parts_of_names_decide() {
        for (layer, group) in [
            ("model.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", Content),
            ("mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj", Content),
            ("input_blocks.4.1.transformer_blocks.0.attn2.to_out.0", Content),
            ("model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k", Quality),
            ("model.time_embedding.linear_1", Quality),
            ("conv_in", Quality),
            ("buffer.conv", Quality),
            ("offset.proj", Quality),
            ("blocks.attn20.to_q", Quality),
        ] {
            assert_eq!(Group::of(layer), group, "{layer}");
            assert_eq!(Group::of_component("unet", layer), group, "{layer}");
        }
    }

    #[test]
    fn what_is_seen_in_pictures_alone_is_content() {
        for (component, layer) in [
            ("text_encoder", "text_model.encoder.layers.0.self_attn.k_proj"),
            ("text_encoder_2", "text_projection"),
            ("vae", "decoder.conv_in"),
        ] {
            assert_eq!(Group::of_component(component, layer), Content, "{component} {layer}");
        }
    }
}
