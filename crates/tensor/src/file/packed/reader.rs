//! A packed file, mapped.

use std::collections::BTreeMap;
use std::path::Path;

use ::safetensors::Dtype as Stored;

use super::{CHECKSUMS, LINE, Record, SIGNED, VERSION, key, tensor_name, tensor_type};
use crate::file::{Checkpoint, Error, SafeTensors};
use crate::packed::{Form, Kind, PackedWeight, Part};
use crate::program::PanelOrder;

/// More elements than any weight has; sizes stay far from the limits of numbers.
const MAX_ELEMENTS: u64 = 1 << 40;

/// A packed pipeline: configurations and weights by the names of diffusers.
#[derive(Debug)]
pub struct PackedFile {
    pub(super) file: SafeTensors,
    version: u32,
    weights: BTreeMap<String, BTreeMap<String, Record>>,
    plan: String,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.form, self.shape)
    }
}

impl PackedFile {
    /// Whether a safetensors file is a packed pipeline.
    pub fn is_packed(file: &SafeTensors) -> bool {
        file.metadata().contains_key(key::VERSION)
    }

    /// The pipeline in a file of which [`PackedFile::is_packed`] is true.
    ///
    /// # Errors
    ///
    /// If it is of a newer version, or its metadata is damaged.
    pub fn new(file: SafeTensors) -> Result<Self, Error> {
        let fault = |fault: String| Error::PackedFile { path: file.path().to_owned(), fault };
        let note = |key: &str| {
            let note = file.metadata().get(key);
            note.ok_or_else(|| fault(format!("its header has no {key}; pack the model again")))
        };
        let version: u32 = note(key::VERSION)?
            .parse()
            .map_err(|_| fault("its version is not a number; pack the model again".into()))?;
        if !(1..=VERSION).contains(&version) {
            return Err(fault(format!(
                "it has version {version} of the format and this program reads versions 1 to {VERSION}; \
                 use a program of its age, or pack the model again"
            )));
        }
        let weights = serde_json::from_str(note(key::WEIGHTS)?)
            .map_err(|error| fault(format!("its list of weights is damaged ({error})")))?;
        let plan = note(key::PLAN)?.clone();
        Ok(Self { file, version, weights, plan })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Which format each layer has, as the writer wrote it down.
    pub fn plan(&self) -> &str {
        &self.plan
    }

    /// Free text about the file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.file.metadata()
    }

    /// One of the small files, by its path in the layout of diffusers.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        let place = self.file.place(path).filter(|place| place.dtype == Stored::U8)?;
        Some(self.file.slice(place))
    }

    /// The weights of a component, such as `unet`.
    ///
    /// # Errors
    ///
    /// If a weight is not in the form that the list of weights says.
    pub fn component(&self, component: &str) -> Result<Checkpoint, Error> {
        let none = BTreeMap::new();
        let weights = self.weights.get(component).unwrap_or(&none).iter().map(|(name, record)| {
            let weight = self.weight(component, name, record).map_err(|fault| {
                let fault = format!("`{component}/{name}` {fault}; pack the model again");
                Error::PackedFile { path: self.path().to_owned(), fault }
            })?;
            Ok((name.clone(), weight))
        });
        let weights = weights.collect::<Result<Vec<_>, Error>>()?;
        let place = format!("{} ({component})", self.path().display());
        Ok(Checkpoint::from_packed(&place, weights))
    }

    fn weight(&self, component: &str, name: &str, record: &Record) -> Result<PackedWeight, String> {
        let form = Form { shape: record.shape.clone(), kind: record.form.parse()? };
        check(&form)?;
        let part = |(part, bytes)| {
            let tensor = tensor_name(component, name, part);
            let place = self.file.place(&tensor).ok_or_else(|| format!("lacks `{tensor}`"))?;
            let mut expected = tensor_type(&form, part, bytes);
            if part == Part::Multipliers && self.version < SIGNED {
                expected.0 = Stored::U8;
            }
            if (place.dtype, place.range.len()) != (expected.0, bytes) || place.shape != expected.1
            {
                return Err(format!("does not fit the form {}", form.kind));
            }
            if !place.range.start.is_multiple_of(LINE) {
                return Err("does not start on a cache line".to_owned());
            }
            Ok((part, self.file.bytes(place)))
        };
        let parts = form.parts().into_iter().map(part).collect::<Result<_, _>>()?;
        Ok(PackedWeight::new(form, parts))
    }

    /// Compare everything with its checksum. `progress` is told bytes done and bytes in all.
    ///
    /// # Errors
    ///
    /// The names of all that is damaged.
    pub fn verify(&self, progress: &dyn Fn(usize, usize)) -> Result<(), Error> {
        let fault = |fault: String| Error::PackedFile { path: self.path().to_owned(), fault };
        let sums = self.file.place(CHECKSUMS).filter(|place| place.dtype == Stored::U32);
        let sums = sums.ok_or_else(|| fault("it has no checksums; pack it again".into()))?;
        let (sums, _) = self.file.slice(sums).as_chunks::<4>();
        let tensors = self.file.in_order();
        let (total, mut done) = (self.file.len(), 0);
        let mut damaged = Vec::new();
        let parts = std::iter::once(("the header", self.file.header_bytes()))
            .chain(tensors.iter().map(|(name, place)| (*name, self.file.slice(place))));
        let parts: Vec<_> = parts.filter(|(name, _)| *name != CHECKSUMS).collect();
        if parts.len() != sums.len() {
            return Err(fault("it has too few or too many checksums; copy it again".into()));
        }
        for ((name, bytes), sum) in parts.into_iter().zip(sums) {
            let mut hasher = crc32fast::Hasher::new();
            for piece in bytes.chunks(1 << 20) {
                hasher.update(piece);
                done += piece.len();
                progress(done, total);
            }
            if hasher.finalize() != u32::from_le_bytes(*sum) {
                damaged.push(name);
            }
            self.file.drop_pages(bytes);
        }
        match damaged.as_slice() {
            [] => Ok(()),
            [first, rest @ ..] => {
                let more = match rest.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                Err(fault(format!("`{first}`{more} is damaged; copy the file again")))
            }
        }
    }
}

/// Whether a form's sizes can be computed with.
fn check(form: &Form) -> Result<(), String> {
    let sizes = &form.shape;
    let elements = sizes.iter().try_fold(1_u64, |product, &size| {
        product.checked_mul(size as u64).filter(|product| (1..=MAX_ELEMENTS).contains(product))
    });
    let dimensions = match form.kind {
        Kind::Panels(PanelOrder::Natural, _) => sizes.len() >= 2,
        Kind::Panels(PanelOrder::Gated, _) => sizes.len() >= 2 && sizes[0].is_multiple_of(2),
        _ => true,
    };
    if elements.is_none() || !dimensions {
        return Err(format!("cannot have the shape {sizes:?}"));
    }
    Ok(())
}
