//! The innermost layers of both halves: pixels attend to each other between two residual layers.

use tensor::Value;
use tensor::graph::Mask;

use super::Config;
use crate::nn::{Attention, AttentionConfig, Bias, GroupNorm, Resnet};
use crate::{Error, Params};

/// ε of all normalisations in an autoencoder.
pub(super) const EPS: f32 = 1e-6;

/// `y = resnet1(h + attention(norm(h)))` with `h = resnet0(x)`; some models do without the attention.
#[derive(Clone, Debug)]
pub(super) struct Middle {
    resnets: [Resnet; 2],
    attention: Option<(GroupNorm, Attention)>,
}

impl Middle {
    /// The layers at this place.
    pub(super) fn load(params: &Params, config: &Config) -> Result<Self, Error> {
        let channels = config.inner();
        let resnet_config = config.resnet()?;
        let resnet =
            |i| Resnet::load(&params.at("resnets").at(i), [channels, channels], &resnet_config);
        let attention = || {
            let params = params.at("attentions.0");
            let norm =
                GroupNorm::load(&params.at("group_norm"), channels, config.norm_num_groups, EPS)?;
            let early = params.contains("query.weight");
            let names = if early { Attention::EARLY } else { Attention::DIFFUSERS };
            let (context, inner, heads, bias) = (channels, channels, 1, Bias::Learned);
            let sizes = AttentionConfig { channels, context, inner, heads, bias };
            Ok::<_, Error>((norm, Attention::load(&params, names, sizes)?))
        };
        Ok(Self {
            resnets: [resnet(0)?, resnet(1)?],
            attention: config.mid_block_add_attention.then(attention).transpose()?,
        })
    }

    /// `[batch, height, width, channels]`, shape kept.
    #[track_caller]
    pub(super) fn forward<'g>(&self, x: Value<'g>) -> Value<'g> {
        let mut h = self.resnets[0].forward(x, None);
        if let Some((norm, attention)) = &self.attention {
            let shape = h.shape();
            let pixels = h.reshape([shape[0], shape[1] * shape[2], shape[3]]);
            let q = norm.forward(pixels);
            h = (attention.forward(q, q, Mask::None) + pixels).reshape(shape);
        }
        self.resnets[1].forward(h, None)
    }
}
