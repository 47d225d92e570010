//! Recorded nodes → groups that run as one operation.
//!
//! The rule is local: a matrix product or normalisation swallows the nodes behind it for as long as its result has a
//! single consumer, and that consumer's other operand exists already. Fusion never changes a number: a fused result is
//! the same `f32` arithmetic in the same order as the operations apart.

use std::collections::{HashMap, HashSet};

use super::{Activation, Kind, NodeId, Recording};
use crate::Precision;

/// A part of a recording: what is to be computed, and from what.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The values wanted.
    pub outputs: &'a [Output],
    /// Values that are given from outside, beside the recorded inputs. They are kept from run to run, in the
    /// format in which the part reads them.
    pub given: &'a [NodeId],
}

/// A value that a part of a recording computes for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The value.
    pub node: NodeId,
    /// The format in which it is wanted.
    pub precision: Precision,
}

impl From<NodeId> for Output {
    fn from(node: NodeId) -> Self {
        Self { node, precision: Precision::F32 }
    }
}

/// Nodes that run as one operation.
#[derive(Clone, Debug)]
pub(crate) struct Fused {
    /// The node whose kind the operation has.
    pub(crate) base: NodeId,
    /// The node whose value it produces.
    pub(crate) result: NodeId,
    /// What it reads instead of the base's first operand, where a resize in front of it was swallowed.
    pub(crate) source: NodeId,
    /// Swallowed behind it.
    pub(crate) tail: Tail,
}

/// What a group does to the result of its base.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tail {
    pub(crate) shift: Option<NodeId>,
    pub(crate) residual: Option<NodeId>,
    pub(crate) activation: Option<Activation>,
    pub(crate) gated: bool,
    pub(crate) scale: f32,
}

impl Tail {
    const NONE: Self =
        Self { shift: None, residual: None, activation: None, gated: false, scale: 1.0 };

    /// Whether nothing may follow: an activation ends the sum that shift and residual belong to.
    fn sum_is_open(&self) -> bool {
        self.activation.is_none() && !self.gated && self.scale == 1.0
    }
}

/// Which nodes of a recording a part needs, and who uses them. Reshapes are seen through.
pub(crate) struct Uses<'a> {
    recording: &'a Recording,
    part: Part<'a>,
    needed: HashSet<NodeId>,
    users: HashMap<NodeId, Vec<NodeId>>,
}

impl<'a> Uses<'a> {
    pub(crate) fn new(recording: &'a Recording, part: Part<'a>) -> Self {
        let mut uses = Self { recording, part, needed: HashSet::new(), users: HashMap::new() };
        let mut stack: Vec<NodeId> = part.outputs.iter().map(|out| out.node).collect();
        while let Some(id) = stack.pop() {
            if uses.needed.insert(id) && !uses.is_given(id) {
                stack.extend(&recording.node(id).inputs);
            }
        }
        let mut order: Vec<NodeId> = uses.needed.iter().copied().collect();
        order.sort_unstable();
        for id in order {
            if uses.is_given(id) || matches!(recording.node(id).kind, Kind::Reshape) {
                continue;
            }
            for input in &recording.node(id).inputs {
                uses.users.entry(uses.root(*input)).or_default().push(id);
            }
        }
        uses
    }

    /// The node whose buffer holds this node's value: reshapes share their operand's.
    pub(crate) fn root(&self, mut id: NodeId) -> NodeId {
        while !self.is_given(id) && matches!(self.recording.node(id).kind, Kind::Reshape) {
            id = self.recording.node(id).inputs[0];
        }
        id
    }

    /// Whether it comes from outside.
    pub(crate) fn is_given(&self, id: NodeId) -> bool {
        self.recording.node(id).is_input() || self.part.given.contains(&id)
    }

    /// Needed nodes, in recorded order.
    pub(crate) fn needed(&self) -> Vec<NodeId> {
        let mut order: Vec<NodeId> = self.needed.iter().copied().collect();
        order.sort_unstable();
        order
    }

    /// The consumer of a value that has exactly one and is not wanted itself.
    fn only_user(&self, id: NodeId) -> Option<NodeId> {
        let wanted = self.part.outputs.iter().any(|out| self.root(out.node) == id);
        match self.users.get(&id).map(Vec::as_slice) {
            Some(&[user]) if !wanted => Some(user),
            _ => None,
        }
    }
}

/// Group the nodes of a part, in the order in which the groups can run.
pub(crate) fn fuse(recording: &Recording, uses: &Uses<'_>) -> Vec<Fused> {
    let mut swallowed: HashSet<NodeId> = HashSet::new();
    let mut defined: HashSet<NodeId> = HashSet::new();
    let mut groups = Vec::new();
    for id in uses.needed() {
        let node = recording.node(id);
        if uses.is_given(id) {
            defined.insert(id);
            continue;
        }
        if swallowed.contains(&id)
            || matches!(node.kind, Kind::Reshape)
            || resize_before_conv(recording, uses, id)
        {
            continue;
        }
        let mut group =
            Fused { base: id, result: id, source: first_operand(uses, node), tail: Tail::NONE };
        if matches!(node.kind, Kind::Conv2d { .. }) {
            let source = recording.node(group.source);
            if resize_before_conv(recording, uses, group.source) {
                group.source = uses.root(source.inputs[0]);
            }
        }
        while let Some(user) = uses.only_user(group.result) {
            if !swallow(recording, uses, &mut group, user, &defined) {
                break;
            }
            swallowed.insert(user);
            group.result = user;
        }
        defined.insert(group.result);
        groups.push(group);
    }
    groups
}

fn first_operand(uses: &Uses<'_>, node: &super::Node) -> NodeId {
    uses.root(node.inputs[0])
}

/// Whether `id` is a resize whose only consumer is a convolution, which can read through it.
fn resize_before_conv(recording: &Recording, uses: &Uses<'_>, id: NodeId) -> bool {
    let resize = matches!(recording.node(id).kind, Kind::Upsample) && !uses.is_given(id);
    let user = uses.only_user(id).map(|user| &recording.node(user).kind);
    resize && matches!(user, Some(Kind::Conv2d { .. }))
}

/// Try to take `user`, the only consumer of the group's result, into the group.
fn swallow(
    recording: &Recording,
    uses: &Uses<'_>,
    group: &mut Fused,
    user: NodeId,
    defined: &HashSet<NodeId>,
) -> bool {
    if uses.is_given(user) {
        return false;
    }
    let base = &recording.node(group.base).kind;
    let node = recording.node(user);
    let tail = &mut group.tail;
    match (base, &node.kind) {
        (Kind::GroupNorm { .. }, Kind::Activation(Activation::Silu)) => {
            let first = tail.activation.is_none();
            tail.activation = Some(Activation::Silu);
            first
        }
        (Kind::Linear { .. } | Kind::Conv2d { .. }, kind) => match kind {
            Kind::AddShift if tail.sum_is_open() && tail.shift.is_none() => {
                let [x, shift] = operands(uses, node);
                take(&mut tail.shift, shift, x == group.result && defined.contains(&shift))
            }
            Kind::Add if tail.sum_is_open() && tail.residual.is_none() => {
                let [a, b] = operands(uses, node);
                let other = if a == group.result { b } else { a };
                take(&mut tail.residual, other, defined.contains(&other))
            }
            Kind::Activation(function) if tail.sum_is_open() => {
                tail.activation = Some(*function);
                true
            }
            Kind::Geglu => {
                let outputs = recording.node(group.base).shape.channels();
                tail.gated = *tail == Tail::NONE && outputs.is_multiple_of(32);
                tail.gated
            }
            Kind::Scale(factor) if tail.scale == 1.0 => {
                tail.scale = *factor;
                true
            }
            _ => false,
        },
        _ => false,
    }
}

fn operands(uses: &Uses<'_>, node: &super::Node) -> [NodeId; 2] {
    [uses.root(node.inputs[0]), uses.root(node.inputs[1])]
}

fn take(slot: &mut Option<NodeId>, value: NodeId, allowed: bool) -> bool {
    if allowed {
        *slot = Some(value);
    }
    allowed
}
