//! Writes a packed file in one pass.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::iter::Peekable;

use ::safetensors::Dtype as Stored;
use serde::Serializer;
use serde_json::{Value, json};

use super::{CHECKSUMS, LINE, PAD, PAGE, Record, VERSION, key, tensor_name, tensor_type};
use crate::packed::{Form, Kind, PackedWeight};

/// What will be in a file, known before any weight is packed.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Free text beside what the format itself needs.
    pub metadata: BTreeMap<String, String>,
    /// Which format each layer has, as the caller writes it down.
    pub plan: String,
    /// Small files by their path in the layout of diffusers, such as `unet/config.json`.
    pub files: Vec<(String, Vec<u8>)>,
    /// Weights: component, name, form. They will be written in this order.
    pub weights: Vec<(String, String, Form)>,
}

impl Contents {
    /// Bytes of the whole file.
    ///
    /// # Errors
    ///
    /// If something in it cannot be written as JSON.
    pub fn bytes(&self) -> io::Result<u64> {
        let tensors = tensors(self);
        let data: usize = tensors.iter().map(|tensor| tensor.bytes).sum();
        Ok((header(self, &tensors)?.len() + data) as u64)
    }
}

/// A file that is being written.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Tensors that are still to come, in order.
    tensors: Peekable<std::vec::IntoIter<Tensor>>,
    sums: Vec<u32>,
}

#[derive(Debug)]
struct Tensor {
    name: String,
    stored: Stored,
    shape: Vec<usize>,
    bytes: usize,
}

impl<W: Write> Writer<W> {
    /// Write the header and the small files.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(mut out: W, contents: &Contents) -> io::Result<Self> {
        let tensors = tensors(contents);
        let header = header(contents, &tensors)?;
        out.write_all(&header)?;
        let sums = vec![crc32fast::hash(&header)];
        let mut writer = Self { out, tensors: tensors.into_iter().peekable(), sums };
        for (_, bytes) in &contents.files {
            writer.tensor(bytes)?;
        }
        Ok(writer)
    }

    /// Write the next weight.
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// # Panics
    ///
    /// If it is of another form than the next one of the contents: a fault of the caller.
    pub fn weight(&mut self, weight: &PackedWeight) -> io::Result<()> {
        weight.parts().try_for_each(|part| self.tensor(part))
    }

    /// Write the checksums and give the output back.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn finish(mut self) -> io::Result<W> {
        self.fill_up()?;
        let sums: Vec<u8> = self.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        self.next(&sums);
        self.out.write_all(&sums)?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Write the next tensor and the padding before it.
    fn tensor(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.fill_up()?;
        self.next(bytes);
        self.checked(bytes)
    }

    /// Write the padding that comes next, if any does.
    fn fill_up(&mut self) -> io::Result<()> {
        while let Some(pad) = self.tensors.next_if(|tensor| tensor.name.starts_with(PAD)) {
            self.checked(&vec![0; pad.bytes])?;
        }
        Ok(())
    }

    /// Step to the next tensor, which `bytes` must be.
    fn next(&mut self, bytes: &[u8]) {
        let next = self.tensors.next().expect("a file ends with its checksums");
        assert_eq!(next.bytes, bytes.len(), "the bytes of {}", next.name);
    }

    fn checked(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sums.push(crc32fast::hash(bytes));
        self.out.write_all(bytes)
    }
}

/// All tensors in the order of the file.
fn tensors(contents: &Contents) -> Vec<Tensor> {
    let mut list = Listing::default();
    for (path, bytes) in &contents.files {
        list.add(1, path.clone(), (Stored::U8, vec![bytes.len()], bytes.len()));
    }
    for (component, name, form) in &contents.weights {
        for (i, (part, bytes)) in form.parts().into_iter().enumerate() {
            let panels = i == 0 && matches!(form.kind, Kind::Panels(..));
            let (stored, shape) = tensor_type(form, part, bytes);
            let name = tensor_name(component, name, part);
            list.add(if panels { PAGE } else { LINE }, name, (stored, shape, bytes));
        }
    }
    // Its own sum is the only one that is missing, and that of the header is one more. A pad may come before it.
    let sums = list.tensors.len() + 1 + usize::from(!list.end.is_multiple_of(LINE));
    list.add(LINE, CHECKSUMS.to_owned(), (Stored::U32, vec![sums], 4 * sums));
    list.tensors
}

/// Tensors one after another.
#[derive(Default)]
struct Listing {
    tensors: Vec<Tensor>,
    end: usize,
    pads: usize,
}

impl Listing {
    /// Add a tensor that starts at a multiple of `alignment`.
    fn add(
        &mut self,
        alignment: usize,
        name: String,
        (stored, shape, bytes): (Stored, Vec<usize>, usize),
    ) {
        let gap = self.end.next_multiple_of(alignment) - self.end;
        if gap > 0 {
            let name = format!("{PAD}{}", self.pads);
            self.tensors.push(Tensor { name, stored: Stored::U8, shape: vec![gap], bytes: gap });
            self.pads += 1;
        }
        self.end += gap + bytes;
        self.tensors.push(Tensor { name, stored, shape, bytes });
    }
}

/// The length, the list of tensors and the metadata, filled up with spaces so that the data begin on a page.
fn header(contents: &Contents, tensors: &[Tensor]) -> io::Result<Vec<u8>> {
    let mut weights: BTreeMap<&str, BTreeMap<&str, Record>> = BTreeMap::new();
    for (component, name, form) in &contents.weights {
        let record = Record { shape: form.shape.clone(), form: form.kind.to_string() };
        weights.entry(component).or_default().insert(name, record);
    }
    let mut metadata = contents.metadata.clone();
    metadata.insert(key::VERSION.to_owned(), VERSION.to_string());
    metadata.insert(key::PLAN.to_owned(), contents.plan.clone());
    metadata.insert(key::WEIGHTS.to_owned(), serde_json::to_string(&weights)?);
    let mut start = 0;
    let entries = tensors.iter().map(|tensor| {
        let range = [start, start + tensor.bytes];
        start = range[1];
        let (dtype, shape) = (tensor.stored, &tensor.shape);
        (tensor.name.as_str(), json!({ "dtype": dtype, "shape": shape, "data_offsets": range }))
    });
    let notes = ("__metadata__", serde_json::to_value(metadata)?);
    let all: Vec<(&str, Value)> = std::iter::once(notes).chain(entries).collect();
    let mut text = Vec::new();
    serde_json::Serializer::new(&mut text).collect_map(all)?;
    text.resize((8 + text.len()).next_multiple_of(PAGE) - 8, b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    Ok(header)
}
