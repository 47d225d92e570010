//! A model's named tensors, wherever they lie and under whatever names they were stored.
//!
//! A checkpoint is immutable and cheap to clone. Renaming, cutting and correcting make a new one
//! over the same mapped files; the work is done when a tensor is read, and only for that tensor.

use super::recipe::Change;
use super::safetensors::SafeTensors;
use super::view::{Bytes, supported};
use super::{Delta, Dtype, Error, Recipe, TensorView, folder};
use crate::moments::Moments;
use crate::packed::PackedWeight;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Named tensors; a handle, cheap to clone.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    place: Arc<str>,
    entries: Arc<BTreeMap<String, Entry>>,
    /// By the names of layers.
    moments: Arc<BTreeMap<String, Arc<Moments>>>,
}

/// One name: the stored tensor and what becomes of it.
#[derive(Clone, Debug)]
struct Entry {
    source: Source,
    changes: Vec<Change>,
    /// The shape after the changes.
    shape: Vec<usize>,
    deltas: Vec<Arc<Delta>>,
    scale: Option<Scale>,
}

/// What elements of the last dimension are multiplied with after all changes.
#[derive(Clone, Debug)]
struct Scale {
    factors: Arc<[f32]>,
    /// Whether the stored format holds all products.
    keeps_format: bool,
}

/// What a file holds under a name.
#[derive(Clone, Debug)]
enum Source {
    /// Numbers as they were trained.
    Stored { dtype: ::safetensors::Dtype, shape: Vec<usize>, bytes: Bytes },
    /// What kernels read; not to be changed any more.
    Packed(Arc<PackedWeight>),
}

impl Checkpoint {
    /// Opens a safetensors file, an index of shards (`….safetensors.index.json`), or a component's
    /// folder of either.
    ///
    /// # Errors
    ///
    /// Whatever keeps any of its files from being used; see [`Error`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        folder::open(path.as_ref())
    }

    /// The tensors of one file that is open already.
    pub fn from_file(file: &SafeTensors) -> Self {
        let named = |name: &str| Some((name.to_owned(), Entry::of(file, name)?));
        let entries = file.names().filter_map(named).collect();
        Self::new(&file.path().display().to_string(), entries)
    }

    /// Each name's tensor from the file beside it; names that the file lacks are errors.
    pub(super) fn from_shards(
        place: &Path,
        shards: impl IntoIterator<Item = (String, Arc<SafeTensors>)>,
    ) -> Result<Self, Error> {
        let mut entries = BTreeMap::new();
        for (name, file) in shards {
            let entry = Entry::of(&file, &name).ok_or_else(|| Error::Missing {
                place: file.path().display().to_string(),
                name: name.clone(),
            })?;
            entries.insert(name, entry);
        }
        Ok(Self::new(&place.display().to_string(), entries))
    }

    /// Tensors that are already in memory, for tests and computed weights. `place` is how errors
    /// call it.
    pub fn from_views(place: &str, views: impl IntoIterator<Item = (String, TensorView)>) -> Self {
        let entries = views.into_iter().map(|(name, view)| (name, Entry::of_view(&view)));
        Self::new(place, entries.collect())
    }

    /// Weights that are packed already.
    pub(super) fn from_packed(
        place: &str,
        weights: impl IntoIterator<Item = (String, PackedWeight)>,
    ) -> Self {
        let entry = |(name, weight): (String, PackedWeight)| {
            let shape = weight.form().shape.clone();
            (name, Entry::new(Source::Packed(Arc::new(weight)), shape))
        };
        Self::new(place, weights.into_iter().map(entry).collect())
    }

    fn new(place: &str, entries: BTreeMap<String, Entry>) -> Self {
        Self { place: place.into(), entries: Arc::new(entries), moments: Arc::default() }
    }

    /// Where the tensors come from, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of a tensor, without reading it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The name of the number format a tensor is stored in, which need not be one that can be
    /// read.
    pub fn format(&self, name: &str) -> Option<String> {
        self.entries.get(name).map(|entry| match &entry.source {
            Source::Stored { dtype, .. } => dtype.to_string(),
            Source::Packed(weight) => weight.form().kind.to_string(),
        })
    }

    /// The number format that a tensor is read in; `None` where it cannot be read.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        let entry = self.entries.get(name)?;
        let stored = self.stored_dtype(name)?;
        let keeps = entry.scale.as_ref().is_none_or(|scale| scale.keeps_format);
        Some(if keeps && entry.deltas.is_empty() { stored } else { Dtype::F32 })
    }

    /// The number format of a tensor in its file; `None` where it cannot be read.
    pub fn stored_dtype(&self, name: &str) -> Option<Dtype> {
        let Source::Stored { dtype, .. } = self.entries.get(name)?.source else { return None };
        supported(dtype, &self.place, name).ok()
    }

    /// A weight that is packed already.
    pub fn packed(&self, name: &str) -> Option<&PackedWeight> {
        match &self.entries.get(name)?.source {
            Source::Packed(weight) => Some(weight),
            Source::Stored { .. } => None,
        }
    }

    /// Bytes that a tensor takes in its file.
    pub fn size(&self, name: &str) -> Option<usize> {
        let entry = self.entries.get(name)?;
        Some(match &entry.source {
            Source::Stored { dtype, .. } => {
                entry.shape.iter().product::<usize>() * dtype.bitsize() / 8
            }
            Source::Packed(weight) => weight.form().bytes(),
        })
    }

    /// Reads a tensor: a window on its file where it is stored as it is wanted, else made now.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::Dtype`], [`Error::Packed`], and [`Error::NotFinite`] of a correction.
    pub fn tensor(&self, name: &str) -> Result<TensorView, Error> {
        let view = self.unscaled(name)?;
        let Some(scale) = self.entries.get(name).and_then(|entry| entry.scale.as_ref()) else {
            return Ok(view);
        };
        let scaled = scaled(&view, &scale.factors);
        Ok(if scale.keeps_format { scaled.narrowed(view.dtype) } else { scaled })
    }

    /// Reads a tensor as it was before [`Checkpoint::with_scale`].
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::tensor`].
    pub fn unscaled(&self, name: &str) -> Result<TensorView, Error> {
        let entry = self.entries.get(name).ok_or_else(|| self.missing(name))?;
        let Source::Stored { dtype, shape, bytes } = &entry.source else {
            return Err(self.packed_already(name));
        };
        let dtype = supported(*dtype, &self.place, name)?;
        let stored = TensorView::new(dtype, shape.clone(), bytes.clone());
        let view = entry.changes.iter().fold(stored, |view, change| change.apply(view));
        if entry.deltas.is_empty() {
            return Ok(view);
        }
        let mut values = view.to_f32();
        view.drop_pages();
        for delta in &entry.deltas {
            values = delta.added_to(&values).ok_or_else(|| self.not_finite(name))?;
        }
        Ok(TensorView::from_numbers(&entry.shape, values))
    }

    /// The tensors under other names, perhaps cut or turned; those that no recipe names are left
    /// out. Two recipes may use the same stored tensor.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] and [`Error::Shape`] where a recipe cannot be followed.
    pub fn renamed<N: Into<String>>(
        &self,
        recipes: impl IntoIterator<Item = (N, Recipe)>,
    ) -> Result<Self, Error> {
        let entry = |(name, recipe): (N, Recipe)| Ok((name.into(), self.follow(recipe)?));
        let entries = recipes.into_iter().map(entry).collect::<Result<_, Error>>()?;
        Ok(Self { entries: Arc::new(entries), ..self.clone() })
    }

    /// The same with `delta` added to the tensor of this name whenever that is read, which is
    /// then f32. Several add up, in the order given.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::Packed`], and [`Error::Shape`] if it does not fit.
    pub fn with_delta(mut self, name: &str, delta: Delta) -> Result<Self, Error> {
        let shape = self.shape(name).ok_or_else(|| self.missing(name))?;
        if self.packed(name).is_some() {
            return Err(self.packed_already(name));
        }
        if let Some(obstacle) = delta.obstacle(shape) {
            return Err(self.misshapen(name, shape, obstacle));
        }
        if let Some(entry) = Arc::make_mut(&mut self.entries).get_mut(name) {
            entry.deltas.push(Arc::new(delta));
        }
        Ok(self)
    }

    /// The same with each element of the last dimension multiplied by its factor whenever the tensor of this name is
    /// read. It is then f32, unless the stored format holds all products: powers of two from one up lose nothing there until
    /// something becomes too large.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::tensor`], and [`Error::Shape`] if there are more or fewer factors.
    pub fn with_scale(mut self, name: &str, factors: Arc<[f32]>) -> Result<Self, Error> {
        let shape = self.shape(name).ok_or_else(|| self.missing(name))?;
        if self.packed(name).is_some() {
            return Err(self.packed_already(name));
        }
        if factors.is_empty() || shape.last() != Some(&factors.len()) {
            let obstacle = format!("{} factors do not fit", factors.len());
            return Err(self.misshapen(name, shape, obstacle));
        }
        let enlarges = |factor: &f32| *factor >= 1.0 && factor.log2().fract() == 0.0;
        let keeps_format = factors.iter().all(enlarges) && {
            let view = self.unscaled(name)?;
            let most = view.dtype.greatest();
            scaled(&view, &factors).to_f32().iter().all(|x| x.abs() <= most)
        };
        if let Some(entry) = Arc::make_mut(&mut self.entries).get_mut(name) {
            entry.scale = Some(Scale { factors, keeps_format });
        }
        Ok(self)
    }

    /// The same with one more tensor, of these numbers `[count]`.
    #[must_use]
    pub fn with_vector(mut self, name: &str, numbers: &[f32]) -> Self {
        let entry = Entry::of_view(&TensorView::from_f32(&[numbers.len()], numbers));
        Arc::make_mut(&mut self.entries).insert(name.to_owned(), entry);
        self
    }

    /// The same, knowing what its layers read: weights that become whole numbers are then rounded for that.
    #[must_use]
    pub fn with_moments(self, moments: BTreeMap<String, Arc<Moments>>) -> Self {
        Self { moments: Arc::new(moments), ..self }
    }

    /// The same, where a layer reads its inputs multiplied by these factors: what is known of them is scaled.
    #[must_use]
    pub fn with_scaled_moments(mut self, layer: &str, factors: &Arc<[f32]>) -> Self {
        if let Some(of_layer) = Arc::make_mut(&mut self.moments).get_mut(layer) {
            *of_layer = Arc::new(of_layer.scaled(factors));
        }
        self
    }

    /// What a layer reads, where that is known.
    pub fn moments(&self, layer: &str) -> Option<&Arc<Moments>> {
        self.moments.get(layer)
    }

    fn follow(&self, recipe: Recipe) -> Result<Entry, Error> {
        let stored = self.entries.get(&recipe.from).ok_or_else(|| self.missing(&recipe.from))?;
        let mut entry = stored.clone();
        for change in recipe.changes {
            if entry.is_computed() {
                let obstacle = "was corrected already and cannot be changed after".to_owned();
                return Err(self.misshapen(&recipe.from, &entry.shape, obstacle));
            }
            entry.shape = change
                .shape(&entry.shape)
                .map_err(|obstacle| self.misshapen(&recipe.from, &entry.shape, obstacle))?;
            entry.changes.push(change);
        }
        Ok(entry)
    }

    fn missing(&self, name: &str) -> Error {
        Error::Missing { place: self.place.to_string(), name: name.to_owned() }
    }

    fn packed_already(&self, name: &str) -> Error {
        Error::Packed { place: self.place.to_string(), name: name.to_owned() }
    }

    fn not_finite(&self, name: &str) -> Error {
        Error::NotFinite { place: self.place.to_string(), name: name.to_owned() }
    }

    fn misshapen(&self, name: &str, shape: &[usize], obstacle: String) -> Error {
        let (place, name) = (self.place.to_string(), name.to_owned());
        Error::Shape { place, name, shape: shape.to_vec(), obstacle }
    }
}

/// Elements of the last dimension times their factors.
fn scaled(view: &TensorView, factors: &[f32]) -> TensorView {
    let mut values = view.to_f32();
    view.drop_pages();
    for row in values.chunks_exact_mut(factors.len()) {
        row.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
    }
    TensorView::from_numbers(&view.shape, values)
}

impl Entry {
    fn of(file: &SafeTensors, name: &str) -> Option<Self> {
        let place = file.place(name)?;
        let (dtype, shape, bytes) = (place.dtype, place.shape.clone(), file.bytes(place));
        Some(Self::stored(dtype, shape, bytes))
    }

    fn of_view(view: &TensorView) -> Self {
        let dtype = match view.dtype {
            Dtype::F32 => ::safetensors::Dtype::F32,
            Dtype::F16 => ::safetensors::Dtype::F16,
            Dtype::Bf16 => ::safetensors::Dtype::BF16,
        };
        Self::stored(dtype, view.shape.clone(), view.shared_bytes())
    }

    fn stored(dtype: ::safetensors::Dtype, shape: Vec<usize>, bytes: Bytes) -> Self {
        Self::new(Source::Stored { dtype, shape: shape.clone(), bytes }, shape)
    }

    fn new(source: Source, shape: Vec<usize>) -> Self {
        Self { source, changes: Vec::new(), shape, deltas: Vec::new(), scale: None }
    }

    /// Whether it is not as it is stored, but for its shape.
    fn is_computed(&self) -> bool {
        !self.deltas.is_empty() || self.scale.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Checkpoint {
        let matrix = TensorView::from_f32(&[4, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let bias = TensorView::from_f32(&[4], &[1.0, 2.0, 3.0, 4.0]);
        Checkpoint::from_views("example", [("w".to_owned(), matrix), ("b".to_owned(), bias)])
    }

    #[test]
    fn renaming_cuts_turns_and_leaves_out() {
        let recipes = [
            ("upper", Recipe::from("w").rows(0..2)),
            ("lower", Recipe::from("w").rows(2..4).transposed()),
            ("kernel", Recipe::from("w").reshaped(&[4, 2, 1, 1])),
        ];
        let renamed = example().renamed(recipes).unwrap();
        assert_eq!(renamed.names().collect::<Vec<_>>(), ["kernel", "lower", "upper"]);
        assert_eq!(renamed.tensor("upper").unwrap().to_f32(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(renamed.tensor("lower").unwrap().to_f32(), [5.0, 7.0, 6.0, 8.0]);
        assert_eq!(renamed.tensor("kernel").unwrap().shape, [4, 2, 1, 1]);
        assert_eq!(renamed.shape("lower"), Some(&[2, 2][..]));
        assert_eq!(renamed.size("lower"), Some(16));
        assert!(!renamed.contains("b"));
    }

    #[test]
    fn corrections_add_up_and_leave_the_original_alone() {
        let base = example();
        let delta = |scale| Delta {
            up: TensorView::from_f32(&[4, 1], &[1.0, 0.0, 0.0, -1.0]),
            down: TensorView::from_f32(&[1, 2], &[1.0, 2.0]),
            scale,
        };
        let once = base.clone().with_delta("w", delta(1.0)).unwrap();
        let twice = once.clone().with_delta("w", delta(-1.0)).unwrap();
        let expected = [2.0, 4.0, 3.0, 4.0, 5.0, 6.0, 6.0, 6.0];
        assert_eq!(once.tensor("w").unwrap().to_f32(), expected);
        assert_eq!(twice.tensor("w").unwrap().to_f32(), base.tensor("w").unwrap().to_f32());
    }

    #[test]
    fn factors_meet_the_last_dimension() {
        let scaled = example().with_scale("w", [2.0, 0.5].into()).unwrap();
        let expected = [2.0, 1.0, 6.0, 2.0, 10.0, 3.0, 14.0, 4.0];
        assert_eq!(scaled.tensor("w").unwrap().to_f32(), expected);
        assert_eq!(scaled.unscaled("w").unwrap().to_f32()[..2], [1.0, 2.0]);
        let halves = example().tensor("w").unwrap().narrowed(Dtype::F16);
        let halves = Checkpoint::from_views("example", [("w".to_owned(), halves)]);
        for (factors, dtype) in [
            ([2.0, 1.0], Dtype::F16),
            ([2.0, 0.5], Dtype::F32),
            ([3.0, 1.0], Dtype::F32),
            ([16384.0, 1.0], Dtype::F32),
        ] {
            let scaled = halves.clone().with_scale("w", factors.into()).unwrap();
            let view = scaled.tensor("w").unwrap();
            assert_eq!((scaled.dtype("w"), view.dtype), (Some(dtype), dtype), "{factors:?}");
            assert_eq!(view.to_f32()[6..], [7.0 * factors[0], 8.0 * factors[1]]);
        }
        let few = example().with_scale("w", [2.0].into()).unwrap_err().to_string();
        assert!(few.contains("1 factors do not fit"), "{few}");
    }

    #[test]
    fn impossible_requests_name_the_tensor() {
        let base = example();
        let missing = base.tensor("nothing").unwrap_err().to_string();
        assert!(missing.starts_with("example has no tensor `nothing`"), "{missing}");
        let rows = base.renamed([("q", Recipe::from("b").rows(2..9))]).unwrap_err().to_string();
        assert!(rows.contains("tensor `b` of example has shape [4]"), "{rows}");
        let delta = Delta {
            up: TensorView::from_f32(&[1, 1], &[1.0]),
            down: TensorView::from_f32(&[1, 1], &[1.0]),
            scale: 1.0,
        };
        let misfit = base.with_delta("b", delta).unwrap_err().to_string();
        assert!(misfit.contains("does not fit"), "{misfit}");
    }
}
