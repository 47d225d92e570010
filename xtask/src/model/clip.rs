//! CLIP's text encoder: configuration and tensors.

use serde_json::{Value, json};

use super::list::{BRANCH, List, PLAIN, SHARP, Tensor};

const VOCABULARY: usize = 49408;
const POSITIONS: usize = 77;

/// What distinguishes one text encoder from another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clip {
    /// Width of a token.
    pub(crate) hidden: usize,
    /// Number of transformer layers.
    pub(crate) layers: usize,
    /// Attention heads per layer.
    pub(crate) heads: usize,
    /// Activation of the feed-forward part, in the configuration's spelling.
    pub(crate) activation: &'static str,
    /// Width of the pooled embedding.
    pub(crate) projection: usize,
    /// Whether the checkpoint holds the projection, or the encoder goes without.
    pub(crate) pooling: Pooling,
}

/// Which of the two published classes holds the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// `CLIPTextModel`.
    Plain,
    /// `CLIPTextModelWithProjection`.
    Projected,
}

impl Pooling {
    /// Name of the class in `model_index.json` and `config.json`.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Pooling::Plain => "CLIPTextModel",
            Pooling::Projected => "CLIPTextModelWithProjection",
        }
    }
}

impl Clip {
    /// `config.json`.
    pub(crate) fn config(&self) -> Value {
        json!({
            "architectures": [self.pooling.class()],
            "attention_dropout": 0.0,
            "bos_token_id": 0,
            "dropout": 0.0,
            "eos_token_id": 2,
            "hidden_act": self.activation,
            "hidden_size": self.hidden,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "intermediate_size": 4 * self.hidden,
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": POSITIONS,
            "model_type": "clip_text_model",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "pad_token_id": 1,
            "projection_dim": self.projection,
            "torch_dtype": "float16",
            "vocab_size": VOCABULARY,
        })
    }

    /// All tensors.
    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let mut list = List::default();
        let hidden = self.hidden;
        list.table("text_model.embeddings.token_embedding", [VOCABULARY, hidden], 0.5);
        list.table("text_model.embeddings.position_embedding", [POSITIONS, hidden], 0.2);
        for layer in 0..self.layers {
            self.layer(&mut list, &format!("text_model.encoder.layers.{layer}"));
        }
        list.norm("text_model.final_layer_norm", hidden);
        if self.pooling == Pooling::Projected {
            list.weight("text_projection", &[self.projection, hidden], PLAIN);
        }
        list.0
    }

    fn layer(&self, list: &mut List, at: &str) {
        let (square, wide) = ([self.hidden; 2], 4 * self.hidden);
        list.norm(&format!("{at}.layer_norm1"), self.hidden);
        list.layer(&format!("{at}.self_attn.q_proj"), &square, SHARP);
        list.layer(&format!("{at}.self_attn.k_proj"), &square, SHARP);
        list.layer(&format!("{at}.self_attn.v_proj"), &square, PLAIN);
        list.layer(&format!("{at}.self_attn.out_proj"), &square, BRANCH);
        list.norm(&format!("{at}.layer_norm2"), self.hidden);
        list.layer(&format!("{at}.mlp.fc1"), &[wide, self.hidden], PLAIN);
        list.layer(&format!("{at}.mlp.fc2"), &[self.hidden, wide], BRANCH);
    }
}
