//! A tensor as it lies in a file, or as it was made from one: number format, shape, bytes.

use super::Error;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use os::{Mapping, Region};
use std::ops::Range;
use std::sync::Arc;

/// How the numbers of a tensor are stored. Files know more formats; those are refused by name
/// when a tensor in them is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
}

impl Dtype {
    /// Bytes of one number.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The greatest number that it has.
    pub(super) fn greatest(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            Self::F16 => f16::MAX.to_f32(),
            Self::Bf16 => bf16::MAX.to_f32(),
        }
    }

    /// The format's name in safetensors files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One tensor, row-major. Cheap to clone: the bytes are in a mapped file or shared.
#[derive(Clone, Debug)]
pub struct TensorView {
    /// Number format.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    bytes: Bytes,
}

/// Where a tensor's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    Mapped { mapping: Arc<Mapping>, range: Range<usize> },
    Owned(Arc<Vec<u8>>),
    Numbers(Arc<Vec<f32>>),
    Region(Arc<Region>),
}

impl TensorView {
    /// A tensor of its own, for tests and for values that were computed.
    ///
    /// # Panics
    ///
    /// If there are not as many values as the shape says: a fault of the caller.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values fill the shape");
        Self::from_numbers(shape, values.to_vec())
    }

    /// The same without a copy.
    pub(super) fn from_numbers(shape: &[usize], values: Vec<f32>) -> Self {
        Self::new(Dtype::F32, shape.to_vec(), Bytes::Numbers(Arc::new(values)))
    }

    pub(crate) fn new(dtype: Dtype, shape: Vec<usize>, bytes: Bytes) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>() * dtype.size(), bytes.as_slice().len());
        Self { dtype, shape, bytes }
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.bytes().len() / self.dtype.size()
    }

    /// The bytes, little-endian. They need not be aligned: files do not promise it.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Widens `out.len()` elements from element `start` on.
    ///
    /// # Panics
    ///
    /// If they are not all there: a fault of the caller.
    pub fn widen(&self, start: usize, out: &mut [f32]) {
        let size = self.dtype.size();
        let bytes = &self.bytes()[start * size..(start + out.len()) * size];
        match self.dtype {
            Dtype::F32 => bytemuck::cast_slice_mut(out).copy_from_slice(bytes),
            Dtype::F16 => widen_halves::<f16>(bytes, out),
            Dtype::Bf16 => widen_halves::<bf16>(bytes, out),
        }
    }

    /// All elements, widened.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.count()];
        self.widen(0, &mut values);
        values
    }

    /// The same in another format, each number rounded to the nearest that it has.
    pub(super) fn narrowed(self, dtype: Dtype) -> Self {
        let numbers = self.to_f32();
        let bytes = match dtype {
            Dtype::F32 => return Self::from_numbers(&self.shape, numbers),
            Dtype::F16 => halves::<f16>(&numbers),
            Dtype::Bf16 => halves::<bf16>(&numbers),
        };
        Self::new(dtype, self.shape, Bytes::Owned(Arc::new(bytes)))
    }

    /// Asks the system to fetch the bytes, because they will be read soon.
    pub fn will_need(&self) {
        self.bytes.advise_will_need();
    }

    /// Takes the bytes out of this process's memory after use. They stay readable.
    pub fn drop_pages(&self) {
        self.bytes.drop_pages();
    }

    /// The bytes, shared.
    pub(crate) fn shared_bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// The rows `range` of the first dimension; without copying.
    pub(super) fn rows(&self, range: &Range<usize>) -> Self {
        let row = self.bytes().len().checked_div(self.shape[0]).unwrap_or(0);
        let mut shape = self.shape.clone();
        shape[0] = range.len();
        let bytes = self.bytes.narrowed(&(range.start * row..range.end * row));
        Self::new(self.dtype, shape, bytes)
    }

    /// Some of the second dimension; copied.
    pub(crate) fn channels(&self, range: &Range<usize>) -> Self {
        let element = self.shape[2..].iter().product::<usize>() * self.dtype.size();
        let row = (self.shape[1] * element).max(1);
        let rows = self.bytes().chunks_exact(row);
        let some = rows.flat_map(|row| &row[range.start * element..range.end * element]);
        let mut shape = self.shape.clone();
        shape[1] = range.len();
        Self::new(self.dtype, shape, Bytes::Owned(Arc::new(some.copied().collect())))
    }

    /// The transposed matrix; copied.
    pub(super) fn transposed(&self) -> Self {
        let (rows, columns) = (self.shape[0], self.shape[1]);
        let bytes = match self.dtype.size() {
            4 => transposed_elements::<4>(self.bytes(), rows, columns),
            _ => transposed_elements::<2>(self.bytes(), rows, columns),
        };
        Self::new(self.dtype, vec![columns, rows], Bytes::Owned(Arc::new(bytes)))
    }
}

impl Bytes {
    pub(crate) fn of_numbers(numbers: Vec<f32>) -> Self {
        Self::Numbers(Arc::new(numbers))
    }

    pub(crate) fn of_region(region: Region) -> Self {
        Self::Region(Arc::new(region))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped { mapping, range } => &mapping.as_slice()[range.clone()],
            Self::Owned(bytes) => bytes,
            Self::Numbers(numbers) => bytemuck::cast_slice(numbers),
            Self::Region(region) => region.as_slice(),
        }
    }

    pub(crate) fn advise_will_need(&self) {
        if let Self::Mapped { mapping, range } = self {
            mapping.advise_will_need(range.clone());
        }
    }

    pub(crate) fn fetch(&self) {
        if let Self::Mapped { mapping, range } = self {
            mapping.fetch(range.clone());
        }
    }

    pub(crate) fn drop_pages(&self) {
        if let Self::Mapped { mapping, range } = self {
            mapping.drop_pages(range.clone());
        }
    }

    pub(crate) fn evict(&self) {
        if let Self::Mapped { mapping, range } = self {
            mapping.evict(range.clone());
        }
    }

    /// The mapped file that they lie in.
    pub(crate) fn mapping(&self) -> Option<&Arc<Mapping>> {
        match self {
            Self::Mapped { mapping, .. } => Some(mapping),
            _ => None,
        }
    }

    fn narrowed(&self, inner: &Range<usize>) -> Self {
        match self {
            Self::Mapped { mapping, range } => Self::Mapped {
                mapping: Arc::clone(mapping),
                range: range.start + inner.start..range.start + inner.end,
            },
            _ => Self::Owned(Arc::new(self.as_slice()[inner.clone()].to_vec())),
        }
    }
}

/// The formats that are computed with, from the file's.
///
/// # Errors
///
/// [`Error::Dtype`] for any other.
pub(super) fn supported(
    dtype: ::safetensors::Dtype,
    place: &str,
    name: &str,
) -> Result<Dtype, Error> {
    match dtype {
        ::safetensors::Dtype::F32 => Ok(Dtype::F32),
        ::safetensors::Dtype::F16 => Ok(Dtype::F16),
        ::safetensors::Dtype::BF16 => Ok(Dtype::Bf16),
        other => Err(Error::Dtype {
            place: place.to_owned(),
            name: name.to_owned(),
            dtype: other.to_string(),
        }),
    }
}

/// Goes through a small aligned buffer, because the bytes of a file may start anywhere.
fn widen_halves<T>(bytes: &[u8], out: &mut [f32])
where
    T: bytemuck::Pod,
    [T]: HalfFloatSliceExt,
{
    const CHUNK: usize = 512;
    let mut aligned = [T::zeroed(); CHUNK];
    for (bytes, out) in bytes.chunks(2 * CHUNK).zip(out.chunks_mut(CHUNK)) {
        let halves = &mut aligned[..out.len()];
        bytemuck::cast_slice_mut(halves).copy_from_slice(bytes);
        halves.convert_to_f32_slice(out);
    }
}

/// The bytes of numbers in two bytes each.
fn halves<T>(numbers: &[f32]) -> Vec<u8>
where
    T: bytemuck::Pod,
    [T]: HalfFloatSliceExt,
{
    let mut halves = vec![T::zeroed(); numbers.len()];
    halves.convert_from_f32_slice(numbers);
    bytemuck::cast_slice(&halves).to_vec()
}

fn transposed_elements<const SIZE: usize>(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let (elements, _) = bytes.as_chunks::<SIZE>();
    let column = |column| (0..rows).flat_map(move |row| elements[row * columns + column]);
    (0..columns).flat_map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halves(values: &[f32], dtype: Dtype) -> TensorView {
        TensorView::from_f32(&[values.len()], values).narrowed(dtype)
    }

    #[test]
    fn halves_widen_exactly_from_any_element() {
        let values: Vec<f32> = (0..2000).map(|i| i as f32 * 0.5 - 500.0).collect();
        for dtype in [Dtype::F16, Dtype::Bf16] {
            let view = halves(&values, dtype);
            for (start, len) in [(0, 2000), (3, 1), (7, 0), (511, 1027), (1999, 1)] {
                let mut out = vec![f32::NAN; len];
                view.widen(start, &mut out);
                let expected: Vec<f32> = values[start..start + len]
                    .iter()
                    .map(|&v| match dtype {
                        Dtype::F16 => f16::from_f32(v).to_f32(),
                        _ => bf16::from_f32(v).to_f32(),
                    })
                    .collect();
                assert_eq!(out, expected, "{dtype} from {start}, {len} elements");
            }
        }
    }

    #[test]
    fn special_halves_survive() {
        let special = [f32::INFINITY, f32::NEG_INFINITY, 65504.0, 6e-8, -0.0];
        let wide = halves(&special, Dtype::F16).to_f32();
        assert_eq!(wide[..3], special[..3]);
        assert!(wide[3] > 0.0 && wide[3] < 1e-7);
        assert!(wide[4].is_sign_negative());
    }

    #[test]
    fn matrices_are_cut_and_turned() {
        let view = TensorView::from_f32(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(view.rows(&(1..3)).to_f32(), [3.0, 4.0, 5.0, 6.0]);
        assert_eq!(view.rows(&(1..1)).count(), 0);
        let turned = view.transposed();
        assert_eq!(turned.shape, [2, 3]);
        assert_eq!(turned.to_f32(), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
        assert_eq!(turned.transposed().to_f32(), view.to_f32());
    }
}
