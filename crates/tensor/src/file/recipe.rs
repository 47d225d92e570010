//! How a tensor comes about from one of another layout: cut out of a fused one, turned, or seen
//! in another shape. Nothing is computed until the tensor is read.

use super::TensorView;
use std::ops::Range;

/// A stored tensor's name and what to do to it.
///
/// ```
/// use tensor::file::Recipe;
///
/// let same = Recipe::from("vae.conv.weight");
/// let key = Recipe::from("attn.in_proj_weight").rows(1280..2560);
/// let linear = Recipe::from("attn.q.weight").reshaped(&[512, 512]);
/// let turned = Recipe::from("text_projection").transposed();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub(super) from: String,
    pub(super) changes: Vec<Change>,
}

/// One change of shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Rows(Range<usize>),
    Transposed,
    Reshaped(Vec<usize>),
}

impl<S: Into<String>> From<S> for Recipe {
    fn from(from: S) -> Self {
        Self { from: from.into(), changes: Vec::new() }
    }
}

impl Recipe {
    /// The stored tensor's name.
    pub fn source(&self) -> &str {
        &self.from
    }

    /// Only these entries of the first dimension, as a part of a fused matrix or bias.
    pub fn rows(self, range: Range<usize>) -> Self {
        self.and(Change::Rows(range))
    }

    /// The transposed matrix.
    pub fn transposed(self) -> Self {
        self.and(Change::Transposed)
    }

    /// The same elements in the same order under another shape.
    pub fn reshaped(self, shape: &[usize]) -> Self {
        self.and(Change::Reshaped(shape.to_vec()))
    }

    fn and(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
}

impl Change {
    /// The shape afterwards, or why it cannot be done, as a clause after "which".
    pub(super) fn shape(&self, shape: &[usize]) -> Result<Vec<usize>, String> {
        match self {
            Self::Rows(range) => match shape {
                [rows, rest @ ..] if range.start <= range.end && range.end <= *rows => {
                    Ok([&[range.len()], rest].concat())
                }
                _ => Err(format!("has no rows {}..{}", range.start, range.end)),
            },
            Self::Transposed => match *shape {
                [rows, columns] => Ok(vec![columns, rows]),
                _ => Err("is not a matrix and cannot be transposed".to_owned()),
            },
            Self::Reshaped(to) => {
                let count = |shape: &[usize]| {
                    shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))
                };
                if count(to).is_some_and(|wanted| Some(wanted) == count(shape)) {
                    Ok(to.clone())
                } else {
                    Err(format!("cannot be seen as {to:?}"))
                }
            }
        }
    }

    /// Makes the change; [`Change::shape`] must have allowed it.
    pub(super) fn apply(&self, mut view: TensorView) -> TensorView {
        match self {
            Self::Rows(range) => view.rows(range),
            Self::Transposed => view.transposed(),
            Self::Reshaped(shape) => {
                view.shape.clone_from(shape);
                view
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_or_say_why_not() {
        struct Case {
            change: Change,
            before: &'static [usize],
            after: Result<Vec<usize>, &'static str>,
        }
        let cases = [
            Case { change: Change::Rows(2..5), before: &[6, 4], after: Ok(vec![3, 4]) },
            Case { change: Change::Rows(0..0), before: &[6], after: Ok(vec![0]) },
            Case { change: Change::Rows(2..7), before: &[6], after: Err("no rows 2..7") },
            Case { change: Change::Rows(0..1), before: &[], after: Err("no rows") },
            Case { change: Change::Transposed, before: &[2, 3], after: Ok(vec![3, 2]) },
            Case { change: Change::Transposed, before: &[2], after: Err("not a matrix") },
            Case {
                change: Change::Reshaped(vec![4, 2]),
                before: &[4, 2, 1, 1],
                after: Ok(vec![4, 2]),
            },
            Case {
                change: Change::Reshaped(vec![usize::MAX, 2]),
                before: &[2],
                after: Err("cannot be seen"),
            },
        ];
        for Case { change, before, after } in cases {
            match (change.shape(before), after) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{change:?}"),
                (Err(found), Err(part)) => assert!(found.contains(part), "{change:?}: {found}"),
                (found, expected) => panic!("{change:?} of {before:?}: {found:?}, {expected:?}"),
            }
        }
    }
}
