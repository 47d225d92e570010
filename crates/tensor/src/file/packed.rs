//! A whole pipeline in one file, its weights in the form in which kernels read them.
//!
//! The file is a safetensors file, so any reader of those opens it. [`Writer`] writes it from first byte to
//! last; [`PackedFile`] maps it, and its weights are used where they lie. `docs/format.md` describes
//! every byte.

mod reader;
mod writer;

pub use reader::PackedFile;
pub use writer::{Contents, Writer};

use ::safetensors::Dtype as Stored;
use serde::{Deserialize, Serialize};

use super::Dtype;
use crate::packed::{Form, Kind, Numbers, Part};
use crate::scheme::WeightBits;

/// The version of the format that this library writes, and the newest that it reads. Layers of the first had no factors for their
/// inputs, which its readers would not miss; before the third, multipliers were listed as having no sign, and had none.
pub const VERSION: u32 = 3;

/// The first version in which multipliers have a sign.
const SIGNED: u32 = 3;

/// Panels start at a multiple of this many bytes of the file, so that they can be mapped and read directly.
const PAGE: usize = 4096;

/// Everything else starts at a multiple of this many bytes, a cache line and the widest vector.
const LINE: usize = 64;

/// Keys of the header's metadata.
mod key {
    pub(super) const VERSION: &str = "mixdq.version";
    pub(super) const WEIGHTS: &str = "mixdq.weights";
    pub(super) const PLAN: &str = "mixdq.plan";
}

/// The name of the last tensor: CRC-32 of the header and of every tensor before it.
const CHECKSUMS: &str = "mixdq/checksums";

/// Names of tensors that only fill up space begin so.
const PAD: &str = "mixdq/pad/";

/// A weight in the list that the header's metadata holds.
#[derive(Serialize, Deserialize)]
struct Record {
    shape: Vec<usize>,
    form: String,
}

/// The name of a part of a weight in the file.
fn tensor_name(component: &str, weight: &str, part: Part) -> String {
    let ending = match part {
        Part::Values => "",
        Part::Panels => ".panels",
        Part::Scales => ".scales",
        Part::Sums => ".sums",
        Part::Multipliers => ".multipliers",
    };
    format!("{component}/{weight}{ending}")
}

/// The number format and shape under which a part of `bytes` bytes is listed.
fn tensor_type(form: &Form, part: Part, bytes: usize) -> (Stored, Vec<usize>) {
    let stored = match (part, form.kind) {
        (Part::Values, Kind::Rows(dtype))
        | (Part::Panels, Kind::Panels(_, Numbers::Float(dtype))) => stored(dtype),
        (Part::Panels, Kind::Panels(_, Numbers::Integer(scheme))) => match scheme.bits {
            WeightBits::Eight => Stored::I8,
            WeightBits::Four | WeightBits::Two => Stored::U8,
        },
        (Part::Multipliers, _) => Stored::I8,
        _ => Stored::F32,
    };
    let shape = match part {
        Part::Values => form.shape.clone(),
        _ => vec![bytes * 8 / stored.bitsize()],
    };
    (stored, shape)
}

fn stored(dtype: Dtype) -> Stored {
    match dtype {
        Dtype::F32 => Stored::F32,
        Dtype::F16 => Stored::F16,
        Dtype::Bf16 => Stored::BF16,
    }
}

#[cfg(test)]
mod tests;
