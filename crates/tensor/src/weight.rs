//! A parameter of a model: which tensor of which checkpoint, and nothing about how it is computed with.
//!
//! Layers hold [`Weight`]s and never see their numbers. A device turns a weight into what its kernels read (packed
//! panels, vectors, device memory) when a program first needs it, and borrows that for one operation at a time.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use crate::file::{Checkpoint, Dtype, Error, TensorView};
use crate::moments::Moments;
use crate::packed::PackedWeight;

/// A handle to one tensor of a checkpoint, or to some input channels of it. Cloning it is cheap, and clones are the same
/// weight.
#[derive(Clone)]
pub struct Weight(Arc<Inner>);

struct Inner {
    /// Name of the tensor in the checkpoint, such as `down_blocks.0.resnets.0.conv1.weight`; of a part with its channels, as
    /// `conv_shortcut.weight:0-1280`.
    name: String,
    shape: Vec<usize>,
    of: Of,
}

/// What a weight is taken from.
enum Of {
    Checkpoint(Checkpoint),
    /// Some input channels of a whole weight.
    Whole(Weight, Range<usize>),
}

impl Weight {
    /// The tensor `name` of `source`, whose shape the caller has checked to be `shape`.
    pub fn new(source: &Checkpoint, name: &str, shape: &[usize]) -> Self {
        let of = Of::Checkpoint(source.clone());
        Self(Arc::new(Inner { name: name.into(), shape: shape.into(), of }))
    }

    /// The part of a matrix or kernel that meets some of the input channels. A part of a part counts from the whole.
    #[must_use]
    pub fn part(&self, channels: Range<usize>) -> Self {
        let whole = self.whole().clone();
        let mut shape = whole.0.shape.clone();
        shape[1] = channels.len();
        let name = format!("{}:{}-{}", whole.0.name, channels.start, channels.end);
        Self(Arc::new(Inner { name, shape, of: Of::Whole(whole, channels) }))
    }

    /// Name of the tensor in its checkpoint; of a part, with its channels.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Name of the layer it belongs to: the tensor's name without its last part.
    pub fn layer(&self) -> &str {
        let name = &self.whole().0.name;
        name.rsplit_once('.').map_or(name, |(layer, _)| layer)
    }

    /// What plans call that which it is multiplied with: the layer's name; of a part, with its channels, as
    /// `conv_shortcut:0-1280`.
    pub fn reads(&self) -> String {
        match &self.0.of {
            Of::Checkpoint(_) => self.layer().to_owned(),
            Of::Whole(_, Range { start, end }) => format!("{}:{start}-{end}", self.layer()),
        }
    }

    /// Its sizes, as stored in the checkpoint (outputs first).
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.0.shape.iter().product()
    }

    /// The number format of the checkpoint; `None` where the tensor cannot be read, which [`Weight::view`] explains.
    pub fn dtype(&self) -> Option<Dtype> {
        self.source().dtype(self.whole().name())
    }

    /// The number format of the file, whatever the checkpoint makes of its numbers.
    pub fn stored_dtype(&self) -> Option<Dtype> {
        self.source().stored_dtype(self.whole().name())
    }

    /// The weight as kernels read it, where the checkpoint holds it in that form.
    pub fn packed(&self) -> Option<&PackedWeight> {
        self.source().packed(self.name())
    }

    /// How the channels that it is multiplied with go together, where that is known.
    pub(crate) fn moments(&self) -> Option<Arc<Moments>> {
        let all = self.source().moments(self.layer())?;
        match self.channels() {
            None => Some(Arc::clone(all)),
            Some(channels) if channels.end <= all.channels() => Some(all.part(channels).into()),
            Some(_) => None,
        }
    }

    fn whole(&self) -> &Self {
        match &self.0.of {
            Of::Checkpoint(_) => self,
            Of::Whole(whole, _) => whole,
        }
    }

    fn source(&self) -> &Checkpoint {
        match &self.0.of {
            Of::Checkpoint(source) => source,
            Of::Whole(whole, _) => whole.source(),
        }
    }

    fn channels(&self) -> Option<&Range<usize>> {
        match &self.0.of {
            Of::Checkpoint(_) => None,
            Of::Whole(_, channels) => Some(channels),
        }
    }

    /// The numbers, as the checkpoint stores them.
    ///
    /// # Errors
    ///
    /// If the checkpoint cannot deliver the tensor.
    pub fn view(&self) -> Result<TensorView, Error> {
        let view = self.source().tensor(self.whole().name())?;
        let Some(channels) = self.channels() else { return Ok(view) };
        let some = view.channels(channels);
        view.drop_pages();
        Ok(some)
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name(), self.shape())
    }
}

impl PartialEq for Weight {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.whole().0, &other.whole().0) && self.channels() == other.channels()
    }
}

impl Eq for Weight {}

impl Hash for Weight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.whole().0).hash(state);
        self.channels().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::Weight;
    use crate::file::{Checkpoint, TensorView};

    #[test]
    fn a_part_has_the_numbers_of_its_channels() {
        let numbers: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let views = [("a.b.weight".to_owned(), TensorView::from_f32(&[2, 3, 2, 2], &numbers))];
        let whole =
            Weight::new(&Checkpoint::from_views("test", views), "a.b.weight", &[2, 3, 2, 2]);
        let part = whole.part(1..3);
        assert_eq!((part.name(), part.layer()), ("a.b.weight:1-3", "a.b"));
        assert_eq!((part.reads().as_str(), whole.reads().as_str()), ("a.b:1-3", "a.b"));
        let expected: Vec<f32> = (4..12).chain(16..24).map(|i| i as f32).collect();
        let view = part.view().unwrap();
        assert_eq!((&view.shape[..], view.to_f32()), (&[2, 2, 2, 2][..], expected));
        assert!(part == whole.part(1..3) && part != whole.part(0..1) && part != whole);
    }
}
