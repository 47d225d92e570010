//! Which tensors of the layers get their bits.

use crate::group::Group;

/// Weights or activations: they are measured and budgeted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What a layer has learned.
    Weight,
    /// What goes into a layer.
    Act,
}

impl Kind {
    /// The bits that a layer of a group may have. Two are too few for all but the weights of the content group.
    pub fn bits(self, group: Group) -> &'static [u8] {
        match (self, group) {
            (Self::Weight, Group::Content) => &[2, 4, 8],
            (Self::Weight, Group::Quality) | (Self::Act, _) => &[4, 8],
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Act => "act",
        }
    }
}
