//! What has been recorded: nodes in the order in which model code asked for them.

use std::fmt;
use std::panic::Location;

use crate::{Shape, Weight};

/// A node of a recording. Nodes are numbered in recorded order, so an operand's number is below its user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) usize);

impl NodeId {
    /// The first node of any recording.
    pub const FIRST: Self = Self(0);
}

/// One recorded operation.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it computes.
    pub kind: Kind,
    /// Its operands.
    pub inputs: Vec<NodeId>,
    /// Shape of its result.
    pub shape: Shape,
    /// The line of model code that asked for it.
    pub at: &'static Location<'static>,
}

impl fmt::Display for NodeId {
    /// The name of a value that is given or wanted without a name of its own: `%12`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// What a node computes. Operands are named in the order of [`Node::inputs`].
#[derive(Clone, Debug)]
pub enum Kind {
    /// Real numbers from outside.
    Input {
        /// Name by which a session writes it.
        name: String,
    },
    /// Indices from outside.
    Index {
        /// Name by which a session writes it.
        name: String,
    },
    /// `y = x Wᵀ + b` over the last dimension.
    Linear {
        /// `[outputs, inputs]`.
        weight: Weight,
        /// `[outputs]`.
        bias: Option<Weight>,
    },
    /// Cross-correlation over height and width.
    Conv2d {
        /// `[outputs, inputs, kernel height, kernel width]`.
        weight: Weight,
        /// `[outputs]`.
        bias: Option<Weight>,
        /// Step over the input, vertical and horizontal alike.
        stride: usize,
        /// Zeros around the input.
        padding: Padding,
    },
    /// Normalisation over all pixels of a group of channels.
    GroupNorm {
        /// Number of groups.
        groups: usize,
        /// Added to the variance.
        eps: f32,
        /// `[channels]`.
        gamma: Weight,
        /// `[channels]`.
        beta: Weight,
    },
    /// Normalisation over the channels of each row.
    LayerNorm {
        /// Added to the variance.
        eps: f32,
        /// `[channels]`.
        gamma: Weight,
        /// `[channels]`.
        beta: Weight,
    },
    /// An elementwise function.
    Activation(Activation),
    /// `hidden · gelu(gate)` of the two halves of the last dimension.
    Geglu,
    /// Sum of two values of one shape.
    Add,
    /// `x [batch, …, channels] + shift [batch, channels]`.
    AddShift,
    /// `x [batch, tokens, channels] + table [tokens, channels]`.
    AddTable {
        /// `[at least tokens, channels]`.
        table: Weight,
    },
    /// Product of two values of one shape.
    Mul,
    /// `x [batch, …, channels] · factors [channels]`.
    ScaleChannels {
        /// `[channels]`.
        factors: Weight,
    },
    /// Product with a constant.
    Scale(f32),
    /// Sum with a constant.
    Offset(f32),
    /// Two values side by side in the last dimension.
    ConcatChannels,
    /// Two values one after the other in the second dimension.
    ConcatTokens,
    /// `softmax(q kᵀ / √d) v`, head by head.
    Attention {
        /// Number of heads that share the channels.
        heads: usize,
        /// Which keys a query sees.
        mask: Mask,
    },
    /// Nearest-neighbour resize of `[batch, height, width, channels]`.
    Upsample,
    /// The same numbers under another shape.
    Reshape,
    /// Rows of a table, by index.
    Embed {
        /// `[entries, channels]`.
        table: Weight,
    },
    /// One token of each batch element: `x [batch, tokens, channels]`, `which [batch]`.
    SelectToken,
    /// Some of the channels.
    Channels {
        /// The first of them.
        start: usize,
    },
    /// A learned row for each batch element: `[batch, 1, channels]` from a table `[channels]`.
    Repeat {
        /// `[channels]`.
        row: Weight,
    },
}

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)` with the exact error function.
    Gelu,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// The approximation of GELU through the hyperbolic tangent.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All of them.
    None,
    /// Those not after it.
    Causal,
}

/// Zeros around an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The same on all sides.
    pub fn all(n: usize) -> Self {
        Self { top: n, left: n, bottom: n, right: n }
    }
}

/// A finished recording: it can be compiled any number of times, as a whole or in parts.
#[derive(Clone, Debug)]
pub struct Recording {
    nodes: Vec<Node>,
    outputs: Vec<(String, NodeId)>,
}

impl Recording {
    pub(super) fn new(nodes: Vec<Node>, outputs: Vec<(String, NodeId)>) -> Self {
        Self { nodes, outputs }
    }

    /// All nodes, in recorded order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this number.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The number of the node at this place among all.
    ///
    /// # Panics
    ///
    /// If there are fewer nodes.
    pub fn id(&self, at: usize) -> NodeId {
        assert!(at < self.nodes.len(), "a node of the recording");
        NodeId(at)
    }

    /// The named results.
    pub fn outputs(&self) -> &[(String, NodeId)] {
        &self.outputs
    }

    /// The result of this name and its shape.
    pub fn output(&self, name: &str) -> Option<(NodeId, &Shape)> {
        let (_, id) = self.outputs.iter().find(|(n, _)| n == name)?;
        Some((*id, &self.node(*id).shape))
    }

    /// The node that computes the layer of this name (`down_blocks.0.resnets.0.conv1`).
    pub fn layer(&self, name: &str) -> Option<NodeId> {
        let at = self.nodes.iter().position(|n| n.weight().is_some_and(|w| w.layer() == name))?;
        Some(NodeId(at))
    }

    /// Where a layer's format begins to matter: at the normalisation before it, which may write its result in that
    /// format, or else at the layer itself.
    pub fn start_of(&self, layer: NodeId) -> NodeId {
        let mut at = layer;
        while let Some(&input) = self.node(at).inputs.first() {
            at = input;
            match self.node(at).kind {
                Kind::GroupNorm { .. } | Kind::LayerNorm { .. } => return at,
                Kind::Reshape | Kind::Upsample | Kind::Activation(_) => {}
                _ => break,
            }
        }
        layer
    }

    /// The values that the inputs `changing` do not reach, but that something reads which they do reach: what can
    /// be computed once while only those inputs change.
    ///
    /// Like [`Recording::live_before`], it depends on the recording alone.
    pub fn steady(&self, changing: &[&str]) -> Vec<NodeId> {
        let mut reached = vec![false; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            reached[i] = match &node.kind {
                Kind::Input { name } | Kind::Index { name } => changing.contains(&name.as_str()),
                _ => node.inputs.iter().any(|id| reached[id.0]),
            };
        }
        let readers = self.nodes.iter().zip(&reached).filter(|(_, reached)| **reached);
        let mut steady: Vec<NodeId> = readers
            .flat_map(|(node, _)| node.inputs.iter().copied())
            .filter(|id| !reached[id.0] && !self.node(*id).is_input())
            .collect();
        steady.sort_unstable();
        steady.dedup();
        steady
    }

    /// The values that exist before `cut` and are needed by it or after it: what must be kept to resume there.
    ///
    /// The set depends on the recording alone, not on fusion or memory layout.
    pub fn live_before(&self, cut: NodeId) -> Vec<NodeId> {
        let mut live: Vec<NodeId> = self.nodes[cut.0..]
            .iter()
            .flat_map(|n| n.inputs.iter().copied())
            .chain(self.outputs.iter().map(|(_, id)| *id))
            .filter(|id| *id < cut && !self.node(*id).is_input())
            .collect();
        live.sort_unstable();
        live.dedup();
        live
    }
}

impl Node {
    /// The weight of a layer that multiplies by one.
    pub fn weight(&self) -> Option<&Weight> {
        match &self.kind {
            Kind::Linear { weight, .. } | Kind::Conv2d { weight, .. } => Some(weight),
            _ => None,
        }
    }

    /// The layer whose parameters it uses.
    pub fn layer(&self) -> Option<&str> {
        match &self.kind {
            Kind::GroupNorm { gamma: w, .. }
            | Kind::LayerNorm { gamma: w, .. }
            | Kind::AddTable { table: w }
            | Kind::Embed { table: w } => Some(w.layer()),
            _ => self.weight().map(Weight::layer),
        }
    }

    /// Whether it comes from outside.
    pub fn is_input(&self) -> bool {
        matches!(self.kind, Kind::Input { .. } | Kind::Index { .. })
    }
}

impl Kind {
    /// What it is called in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input { .. } => "input",
            Self::Index { .. } => "index",
            Self::Linear { .. } => "linear",
            Self::Conv2d { .. } => "conv2d",
            Self::GroupNorm { .. } => "group_norm",
            Self::LayerNorm { .. } => "layer_norm",
            Self::Activation(_) => "activation",
            Self::Geglu => "geglu",
            Self::Add => "add",
            Self::AddShift => "add_shift",
            Self::AddTable { .. } => "add_table",
            Self::Mul => "mul",
            Self::ScaleChannels { .. } => "scale_channels",
            Self::Scale(_) => "scale",
            Self::Offset(_) => "offset",
            Self::ConcatChannels => "concat_channels",
            Self::ConcatTokens => "concat_tokens",
            Self::Attention { .. } => "attention",
            Self::Upsample => "upsample",
            Self::Reshape => "reshape",
            Self::Embed { .. } => "embed",
            Self::SelectToken => "select_token",
            Self::Channels { .. } => "channels",
            Self::Repeat { .. } => "repeat",
        }
    }
}
