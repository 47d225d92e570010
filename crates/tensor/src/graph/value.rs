//! The arithmetic that model code writes.

use std::ops::{Add, Mul};

use super::{Activation, Graph, Kind, Mask, NodeId, Padding};
use crate::{Shape, Weight};

/// The result of an operation that has been recorded but not run.
#[derive(Clone, Copy, Debug)]
pub struct Value<'g> {
    graph: &'g Graph,
    node: NodeId,
}

impl<'g> Value<'g> {
    pub(super) fn new(graph: &'g Graph, node: NodeId) -> Self {
        Self { graph, node }
    }

    /// Its number in the recording.
    pub fn node(self) -> NodeId {
        self.node
    }

    /// The graph it belongs to.
    pub fn graph(self) -> &'g Graph {
        self.graph
    }

    /// Its shape.
    pub fn shape(self) -> Shape {
        self.graph.nodes.borrow()[self.node.0].shape
    }

    /// `x Wᵀ + b`: `[…, inputs]` → `[…, outputs]`, weight `[outputs, inputs]`.
    #[track_caller]
    pub fn linear(self, weight: &Weight, bias: Option<&Weight>) -> Self {
        let shape = self.shape();
        let sizes = weight.shape();
        if sizes.len() != 2 || sizes[1] != shape.channels() {
            self.graph.fail("linear", &[&shape, sizes]);
        }
        let kind = Kind::Linear { weight: weight.clone(), bias: bias.cloned() };
        self.record(kind, shape.with_channels(sizes[0]))
    }

    /// Convolution of `[batch, height, width, inputs]` with `[outputs, inputs, kernel height, kernel width]`.
    #[track_caller]
    pub fn conv2d(
        self,
        weight: &Weight,
        bias: Option<&Weight>,
        stride: usize,
        padding: Padding,
    ) -> Self {
        let shape = self.shape();
        let sizes = weight.shape();
        let fits = shape.len() == 4
            && sizes.len() == 4
            && sizes[1] == shape.channels()
            && shape[1] + padding.top + padding.bottom >= sizes[2]
            && shape[2] + padding.left + padding.right >= sizes[3];
        if !fits {
            self.graph.fail("conv2d", &[&shape, sizes]);
            return self;
        }
        let height = (shape[1] + padding.top + padding.bottom - sizes[2]) / stride + 1;
        let width = (shape[2] + padding.left + padding.right - sizes[3]) / stride + 1;
        let kind = Kind::Conv2d { weight: weight.clone(), bias: bias.cloned(), stride, padding };
        self.record(kind, Shape::from([shape[0], height, width, sizes[0]]))
    }

    /// Normalise over all pixels of each of `groups` groups of channels.
    #[track_caller]
    pub fn group_norm(self, groups: usize, eps: f32, gamma: &Weight, beta: &Weight) -> Self {
        let channels = self.shape().channels();
        if groups == 0 || !channels.is_multiple_of(groups) || gamma.elements() != channels {
            self.graph.fail("group_norm", &[&self.shape(), gamma.shape(), &[groups]]);
        }
        let (gamma, beta) = (gamma.clone(), beta.clone());
        self.record(Kind::GroupNorm { groups, eps, gamma, beta }, self.shape())
    }

    /// Normalise over the channels of each row.
    #[track_caller]
    pub fn layer_norm(self, eps: f32, gamma: &Weight, beta: &Weight) -> Self {
        if gamma.elements() != self.shape().channels() {
            self.graph.fail("layer_norm", &[&self.shape(), gamma.shape()]);
        }
        let (gamma, beta) = (gamma.clone(), beta.clone());
        self.record(Kind::LayerNorm { eps, gamma, beta }, self.shape())
    }

    /// Apply an elementwise function.
    #[track_caller]
    pub fn activate(self, function: Activation) -> Self {
        self.record(Kind::Activation(function), self.shape())
    }

    /// `x · sigmoid(x)`.
    #[track_caller]
    pub fn silu(self) -> Self {
        self.activate(Activation::Silu)
    }

    /// `hidden · gelu(gate)` of the two halves of the channels: `[…, 2n]` → `[…, n]`.
    #[track_caller]
    pub fn geglu(self) -> Self {
        let channels = self.shape().channels();
        if !channels.is_multiple_of(2) {
            self.graph.fail("geglu", &[&self.shape()]);
        }
        self.record(Kind::Geglu, self.shape().with_channels(channels / 2))
    }

    /// Add one row of `shift [batch, channels]` to every pixel or token of a batch element.
    #[track_caller]
    pub fn add_shift(self, shift: Self) -> Self {
        let (x, s) = (self.shape(), shift.shape());
        if s.len() != 2 || x.batch() != s.batch() || x.channels() != s.channels() {
            self.graph.fail("add_shift", &[&x, &s]);
        }
        self.combine(Kind::AddShift, shift, x)
    }

    /// Add a learned table `[at least tokens, channels]` to each batch element of `[batch, tokens, channels]`.
    #[track_caller]
    pub fn add_table(self, table: &Weight) -> Self {
        let (x, t) = (self.shape(), table.shape());
        if x.len() != 3 || t.len() != 2 || t[0] < x[1] || t[1] != x[2] {
            self.graph.fail("add_table", &[&x, t]);
        }
        self.record(Kind::AddTable { table: table.clone() }, x)
    }

    /// Product with a constant.
    #[track_caller]
    pub fn scale(self, factor: f32) -> Self {
        self.record(Kind::Scale(factor), self.shape())
    }

    /// Product of each channel with its own factor, of `[channels]`.
    #[track_caller]
    pub fn scale_channels(self, factors: &Weight) -> Self {
        let x = self.shape();
        if factors.shape() != [x.channels()] {
            self.graph.fail("scale_channels", &[&x, factors.shape()]);
        }
        self.record(Kind::ScaleChannels { factors: factors.clone() }, x)
    }

    /// Sum with a constant.
    #[track_caller]
    pub fn offset(self, summand: f32) -> Self {
        self.record(Kind::Offset(summand), self.shape())
    }

    /// `[…, a]` and `[…, b]` → `[…, a + b]`.
    #[track_caller]
    pub fn concat_channels(self, other: Self) -> Self {
        let (a, b) = (self.shape(), other.shape());
        if a.with_channels(1) != b.with_channels(1) {
            self.graph.fail("concat_channels", &[&a, &b]);
        }
        self.combine(Kind::ConcatChannels, other, a.with_channels(a.channels() + b.channels()))
    }

    /// `[batch, a, channels]` and `[batch, b, channels]` → `[batch, a + b, channels]`.
    #[track_caller]
    pub fn concat_tokens(self, other: Self) -> Self {
        let (a, b) = (self.shape(), other.shape());
        if a.len() != 3 || b.len() != 3 || a[0] != b[0] || a[2] != b[2] {
            self.graph.fail("concat_tokens", &[&a, &b]);
            return self;
        }
        self.combine(Kind::ConcatTokens, other, Shape::from([a[0], a[1] + b[1], a[2]]))
    }

    /// `softmax(q kᵀ / √d) v` with `self` as queries `[batch, tokens, channels]`, split over `heads`.
    #[track_caller]
    pub fn attention(self, key: Self, value: Self, heads: usize, mask: Mask) -> Self {
        let (q, k, v) = (self.shape(), key.shape(), value.shape());
        let fits = q.len() == 3 && k == v && k.len() == 3 && q[0] == k[0] && q[2] == k[2];
        if !fits || heads == 0 || q[2] % heads != 0 {
            self.graph.fail("attention", &[&q, &k, &v, &[heads]]);
        }
        let inputs = [self.node, key.node, value.node];
        self.graph.record(Kind::Attention { heads, mask }, &inputs, q)
    }

    /// Nearest-neighbour resize of `[batch, height, width, channels]` to another height and width.
    #[track_caller]
    pub fn upsample(self, height: usize, width: usize) -> Self {
        let x = self.shape();
        if x.len() != 4 {
            self.graph.fail("upsample", &[&x]);
            return self;
        }
        self.record(Kind::Upsample, Shape::from([x[0], height, width, x[3]]))
    }

    /// The same numbers under another shape.
    #[track_caller]
    pub fn reshape(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        if shape.elements() != self.shape().elements() {
            self.graph.fail("reshape", &[&self.shape(), &shape]);
        }
        self.record(Kind::Reshape, shape)
    }

    /// Rows of `table [entries, channels]` by these indices `[…]` → `[…, channels]`.
    ///
    /// The session checks that every index it is given is below the table's number of entries.
    #[track_caller]
    pub fn embed(self, table: &Weight) -> Self {
        let mut sizes = self.shape().to_vec();
        sizes.push(table.shape().last().copied().unwrap_or(0));
        if table.shape().len() != 2 || sizes.len() > 4 {
            self.graph.fail("embed", &[&self.shape(), table.shape()]);
            return self;
        }
        self.record(Kind::Embed { table: table.clone() }, Shape::new(&sizes))
    }

    /// Token `which[b]` of each batch element: `[batch, tokens, channels]`, indices `[batch]` → `[batch, channels]`.
    #[track_caller]
    pub fn select_token(self, which: Self) -> Self {
        let (x, w) = (self.shape(), which.shape());
        if x.len() != 3 || w.len() != 1 || x[0] != w[0] {
            self.graph.fail("select_token", &[&x, &w]);
            return self;
        }
        self.combine(Kind::SelectToken, which, Shape::from([x[0], x[2]]))
    }

    /// Channels `start..start + count`.
    #[track_caller]
    pub fn channels(self, start: usize, count: usize) -> Self {
        let x = self.shape();
        if start + count > x.channels() {
            self.graph.fail("channels", &[&x, &[start, count]]);
        }
        self.record(Kind::Channels { start }, x.with_channels(count))
    }

    /// A learned `row [channels]` once for each batch element of `self`: `[batch, 1, channels]`.
    #[track_caller]
    pub fn repeat(self, row: &Weight) -> Self {
        let shape = Shape::from([self.shape().batch(), 1, row.elements()]);
        self.record(Kind::Repeat { row: row.clone() }, shape)
    }

    #[track_caller]
    fn record(self, kind: Kind, shape: Shape) -> Self {
        self.graph.record(kind, &[self.node], shape)
    }

    #[track_caller]
    fn combine(self, kind: Kind, other: Self, shape: Shape) -> Self {
        self.graph.record(kind, &[self.node, other.node], shape)
    }
}

impl<'g> Add for Value<'g> {
    type Output = Value<'g>;

    #[track_caller]
    fn add(self, other: Self) -> Self {
        if self.shape() != other.shape() {
            self.graph.fail("add", &[&self.shape(), &other.shape()]);
        }
        self.combine(Kind::Add, other, self.shape())
    }
}

impl<'g> Mul for Value<'g> {
    type Output = Value<'g>;

    #[track_caller]
    fn mul(self, other: Self) -> Self {
        if self.shape() != other.shape() {
            self.graph.fail("mul", &[&self.shape(), &other.shape()]);
        }
        self.combine(Kind::Mul, other, self.shape())
    }
}
