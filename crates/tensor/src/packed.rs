//! Weights in the form in which kernels read them, whether they were made in memory or lie in a file.
//!
//! A [`Form`] says what a weight became and so, with its shape, how many bytes each of its [`Part`]s
//! takes: a file can be laid out before a single number is quantized.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use kernels::format::{PANEL, PanelFormat, PanelLayout, Panels};
use kernels::matmul::{Dequantize, Ranges};

use os::{Mapping, Region};

use crate::file::view::Bytes;
use crate::file::{Dtype, TensorView};
use crate::program::PanelOrder;
use crate::scheme::{Granularity, WeightBits, WeightScheme};

/// What a weight became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Its sizes, as layers know them (outputs first).
    pub shape: Vec<usize>,
    /// How its numbers lie.
    pub kind: Kind,
}

/// How the numbers of a weight lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Plain `f32` numbers (biases, norms).
    Vector,
    /// Rows that are read by index (embeddings).
    Rows(Dtype),
    /// Panels for matrix multiplication.
    Panels(PanelOrder, Numbers),
    /// Nothing but the shape: no picture needs it.
    Absent,
}

/// How the numbers of panels are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Real.
    Float(Dtype),
    /// Whole, with their units.
    Integer(WeightScheme),
}

/// One of the arrays that make up a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A vector or rows.
    Values,
    /// Panels.
    Panels,
    /// `f32 [lanes]`, the units of output channels.
    Scales,
    /// `f32 [lanes]`, the sums of codes times multipliers.
    Sums,
    /// `u8 [panels, groups, 64]`.
    Multipliers,
}

/// A weight that a kernel can read.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    form: Form,
    parts: Vec<(Part, Bytes)>,
}

impl Form {
    /// The shape of the panels, where there are any.
    pub fn layout(&self) -> Option<PanelLayout> {
        let Kind::Panels(order, numbers) = self.kind else { return None };
        let (format, [outputs, inputs]) = (numbers.panels(), [self.shape[0], self.shape[1]]);
        // Codes lie in groups of four inputs.
        let channels = if format.is_int() { inputs.next_multiple_of(4) } else { inputs };
        Some(match order {
            PanelOrder::Gated => PanelLayout::gated(format, outputs / 2, channels),
            PanelOrder::Natural => {
                let taps = self.shape[2..].iter().product();
                PanelLayout { format, n: outputs, taps, channels }
            }
        })
    }

    /// The arrays in the order in which they lie in a file, and the bytes of each.
    pub fn parts(&self) -> Vec<(Part, usize)> {
        let elements: usize = self.shape.iter().product();
        match self.kind {
            Kind::Absent => Vec::new(),
            Kind::Vector => vec![(Part::Values, 4 * elements)],
            Kind::Rows(dtype) => vec![(Part::Values, dtype.size() * elements)],
            Kind::Panels(_, numbers) => {
                let Some(layout) = self.layout() else { return Vec::new() };
                let mut parts = vec![(Part::Panels, layout.bytes())];
                if let Numbers::Integer(scheme) = numbers {
                    let lanes = 4 * layout.n.next_multiple_of(16);
                    parts.extend([(Part::Scales, lanes), (Part::Sums, lanes)]);
                    if scheme.granularity == Granularity::Group {
                        let multipliers = layout.panels() * layout.groups() * PANEL;
                        parts.push((Part::Multipliers, multipliers));
                    }
                }
                parts
            }
        }
    }

    /// Bytes that stay in memory while the weight is in use; rows stay in their file.
    pub fn resident_bytes(&self) -> usize {
        match self.kind {
            Kind::Rows(_) => 0,
            _ => self.bytes(),
        }
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> usize {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Numbers {
    fn panels(self) -> PanelFormat {
        match self {
            Self::Float(Dtype::F32) => PanelFormat::F32,
            Self::Float(Dtype::F16) => PanelFormat::F16,
            Self::Float(Dtype::Bf16) => PanelFormat::Bf16,
            Self::Integer(scheme) => match scheme.bits {
                WeightBits::Two => PanelFormat::Int2,
                WeightBits::Four => PanelFormat::Int4,
                WeightBits::Eight => PanelFormat::Int8,
            },
        }
    }
}

impl PackedWeight {
    /// A weight of this form.
    ///
    /// # Panics
    ///
    /// If `parts` are not those that the form asks for.
    pub(crate) fn new(form: Form, parts: Vec<(Part, Bytes)>) -> Self {
        let sizes = parts.iter().map(|(part, bytes)| (*part, bytes.as_slice().len()));
        assert!(sizes.eq(form.parts()), "the parts of {form:?}");
        Self { form, parts }
    }

    /// What it is.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// Its arrays, in the order of [`Form::parts`].
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|(_, bytes)| bytes.as_slice())
    }

    fn part(&self, wanted: Part) -> Option<&Bytes> {
        self.parts.iter().find(|(part, _)| *part == wanted).map(|(_, bytes)| bytes)
    }

    fn numbers(&self, part: Part) -> Option<&[f32]> {
        self.part(part).map(|bytes| bytemuck::cast_slice(bytes.as_slice()))
    }

    /// The numbers of a vector.
    pub(crate) fn vector(&self) -> Option<&[f32]> {
        if self.form.kind == Kind::Vector { self.numbers(Part::Values) } else { None }
    }

    /// The rows of a table.
    pub(crate) fn rows(&self) -> Option<TensorView> {
        let Kind::Rows(dtype) = self.form.kind else { return None };
        Some(TensorView::new(dtype, self.form.shape.clone(), self.part(Part::Values)?.clone()))
    }

    /// The panels.
    pub(crate) fn panels(&self) -> Option<Panels<'_>> {
        Some(Panels {
            layout: self.form.layout()?,
            bytes: self.part(Part::Panels)?.as_slice(),
            multipliers: self
                .part(Part::Multipliers)
                .map(|part| bytemuck::cast_slice(part.as_slice())),
        })
    }

    /// The units of whole numbers, and those of the activations that meet them.
    pub(crate) fn dequantize<'a>(&'a self, ranges: Option<Ranges<'a>>) -> Option<Dequantize<'a>> {
        let (scales, sums) = (self.numbers(Part::Scales)?, self.numbers(Part::Sums)?);
        Some(Dequantize { scales, sums, ranges })
    }

    /// Says that all of it will be read soon.
    pub(crate) fn advise_will_need(&self) {
        self.parts.iter().for_each(|(_, bytes)| bytes.advise_will_need());
    }

    /// Brings all of it into memory.
    pub(crate) fn fetch(&self) {
        self.parts.iter().for_each(|(_, bytes)| bytes.fetch());
    }

    /// The same in memory of its own, so that no page of a file stays for its sake.
    pub(crate) fn to_owned_memory(&self) -> Result<Self, std::io::Error> {
        let copy = |(part, bytes): &(Part, Bytes)| {
            let mut region = Region::new(bytes.as_slice().len())?;
            region.as_mut_slice().copy_from_slice(bytes.as_slice());
            Ok((*part, Bytes::of_region(region)))
        };
        let parts = self.parts.iter().map(copy).collect::<Result<_, std::io::Error>>()?;
        Ok(Self { form: self.form.clone(), parts })
    }

    /// Takes what lies in a file out of this process's memory and the page cache. It stays readable.
    pub(crate) fn evict(&self) {
        self.parts.iter().for_each(|(_, bytes)| bytes.evict());
    }

    /// Takes the files that weights lie in out of this process's memory, with the neighbours that the system brought
    /// along. They stay readable.
    pub(crate) fn drop_files<'a>(weights: impl Iterator<Item = &'a Self>) {
        let mut last: Option<&Arc<Mapping>> = None;
        for mapping in weights.flat_map(|weight| &weight.parts).filter_map(|(_, b)| b.mapping()) {
            if !last.is_some_and(|last| Arc::ptr_eq(last, mapping)) {
                mapping.drop_pages(0..usize::MAX);
                last = Some(mapping);
            }
        }
    }

    /// Takes what lies in a file out of this process's memory. It stays readable.
    pub(crate) fn drop_pages(&self) {
        self.parts.iter().for_each(|(_, bytes)| bytes.drop_pages());
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(dtype) => f.write_str(&dtype.name().to_ascii_lowercase()),
            Self::Integer(scheme) => scheme.fmt(f),
        }
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match dtype(text) {
            Some(dtype) => Self::Float(dtype),
            None => Self::Integer(text.parse()?),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vector => f.write_str("vector"),
            Self::Rows(dtype) => write!(f, "rows {}", dtype.name().to_ascii_lowercase()),
            Self::Panels(PanelOrder::Natural, numbers) => write!(f, "panels {numbers}"),
            Self::Panels(PanelOrder::Gated, numbers) => write!(f, "gated {numbers}"),
            Self::Absent => f.write_str("absent"),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is no form of a weight");
        match text.split_once(' ') {
            None if text == "vector" => Ok(Self::Vector),
            None if text == "absent" => Ok(Self::Absent),
            Some(("rows", numbers)) => dtype(numbers).map(Self::Rows).ok_or_else(fault),
            Some(("panels", numbers)) => Ok(Self::Panels(PanelOrder::Natural, numbers.parse()?)),
            Some(("gated", numbers)) => Ok(Self::Panels(PanelOrder::Gated, numbers.parse()?)),
            _ => Err(fault()),
        }
    }
}

/// A number format by the name that it has in files.
fn dtype(text: &str) -> Option<Dtype> {
    [Dtype::F32, Dtype::F16, Dtype::Bf16]
        .into_iter()
        .find(|dtype| dtype.name().eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_back() {
        for text in [
            "vector",
            "absent",
            "rows f16",
            "panels f32",
            "panels bf16",
            "gated w8",
            "panels w4",
            "gated w4c",
            "panels w2",
            "panels w2c",
        ] {
            assert_eq!(text.parse::<Kind>().unwrap().to_string(), text);
        }
        for text in ["", "rows", "rows w8", "panels", "panels w3", "gated w8a8", "panel f32"] {
            assert!(text.parse::<Kind>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_follow_from_the_form() {
        let form = |shape: &[usize], kind: &str| Form {
            shape: shape.to_vec(),
            kind: kind.parse().unwrap(),
        };
        assert_eq!(form(&[320], "vector").bytes(), 4 * 320);
        assert_eq!(form(&[100, 8], "rows f16").bytes(), 2 * 800);
        assert_eq!(form(&[100, 8], "rows f16").resident_bytes(), 0);
        assert_eq!(form(&[64, 128], "panels w8").bytes(), 64 * 128 + 2 * 4 * 64);
        // Four bits for each weight and a byte for each group of 64.
        assert_eq!(form(&[64, 128], "panels w4").bytes(), 64 * 64 + 2 * 4 * 64 + 2 * 64);
        // Three inputs are stored as four, 5 outputs as 16, and 36 codes of 4 bits as 40.
        assert_eq!(form(&[5, 3, 3, 3], "panels w4c").bytes(), 16 * 20 + 2 * 4 * 16);
        assert_eq!(form(&[7, 7], "absent").bytes(), 0);
    }
}
