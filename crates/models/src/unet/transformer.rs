//! `Transformer2DModel`: pixels attend to each other and to the text.

use tensor::Value;
use tensor::graph::Mask;

use crate::nn::{Attention, AttentionConfig, Bias, FeedForward, GroupNorm, LayerNorm, Linear};
use crate::{Error, Params};

/// `y = proj_out(blocks(proj_in(norm(x)))) + x`, with pixels as tokens.
///
/// The projections are stored as linear layers or as 1×1 convolutions, which are the same.
#[derive(Clone, Debug)]
pub(super) struct Transformer {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<Block>,
    proj_out: Linear,
}

/// Sizes of a [`Transformer`].
#[derive(Clone, Copy, Debug)]
pub(super) struct TransformerConfig {
    pub(super) channels: usize,
    pub(super) heads: usize,
    /// Channels of the text's embedding.
    pub(super) context: usize,
    /// Whether the first attention reads the text, too.
    pub(super) only_cross: bool,
    /// Number of layers.
    pub(super) depth: usize,
    /// Groups of the normalisation.
    pub(super) groups: usize,
}

impl TransformerConfig {
    /// Channels inside: as many as the heads can share.
    fn inner(&self) -> usize {
        self.channels / self.heads * self.heads
    }
}

impl Transformer {
    /// The layer at this place.
    pub(super) fn load(params: &Params, config: &TransformerConfig) -> Result<Self, Error> {
        let (channels, inner) = (config.channels, config.inner());
        let linear = |name, shape| Linear::load(&params.at(name), shape, Bias::Learned);
        let block = |i| Block::load(&params.at("transformer_blocks").at(i), config);
        Ok(Self {
            norm: GroupNorm::load(&params.at("norm"), channels, config.groups, 1e-6)?,
            proj_in: linear("proj_in", [inner, channels])?,
            blocks: (0..config.depth).map(block).collect::<Result<_, _>>()?,
            proj_out: linear("proj_out", [channels, inner])?,
        })
    }

    /// `x [batch, height, width, channels]`, `context [batch, tokens, context channels]` → shape of `x`.
    #[track_caller]
    pub(super) fn forward<'g>(&self, x: Value<'g>, context: Value<'g>) -> Value<'g> {
        let shape = x.shape();
        let pixels = [shape[0], shape[1] * shape[2], shape[3]];
        let mut h = self.proj_in.forward(self.norm.forward(x).reshape(pixels));
        for block in &self.blocks {
            h = block.forward(h, context);
        }
        (self.proj_out.forward(h) + x.reshape(pixels)).reshape(shape)
    }
}

/// `x += attn1(norm1(x))`, `x += attn2(norm2(x), context)`, `x += ff(norm3(x))`
#[derive(Clone, Debug)]
struct Block {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
    only_cross: bool,
}

impl Block {
    fn load(params: &Params, config: &TransformerConfig) -> Result<Self, Error> {
        let channels = config.inner();
        let norm = |name| LayerNorm::load(&params.at(name), channels, 1e-5);
        let attention = |name, context| {
            let (inner, heads, bias) = (channels, config.heads, Bias::None);
            let sizes = AttentionConfig { channels, context, inner, heads, bias };
            Attention::load(&params.at(name), Attention::DIFFUSERS, sizes)
        };
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: attention("attn1", if config.only_cross { config.context } else { channels })?,
            norm2: norm("norm2")?,
            attn2: attention("attn2", config.context)?,
            norm3: norm("norm3")?,
            ff: FeedForward::load(&params.at("ff"), channels)?,
            only_cross: config.only_cross,
        })
    }

    fn forward<'g>(&self, x: Value<'g>, context: Value<'g>) -> Value<'g> {
        let h = self.norm1.forward(x);
        let x = self.attn1.forward(h, if self.only_cross { context } else { h }, Mask::None) + x;
        let x = self.attn2.forward(self.norm2.forward(x), context, Mask::None) + x;
        self.ff.forward(self.norm3.forward(x)) + x
    }
}
