//! The weights of a model, each in the form that the kernels of the CPU read.

use std::collections::{HashMap, HashSet};

use kernels::format::Panels;
use kernels::matmul::{Dequantize, Ranges};

use super::flow::{Flow, Item};
use super::pack::pack;
use crate::file::{Dtype, TensorView};
use crate::packed::{Form, Kind, Numbers, PackedWeight};
use crate::program::{self, Packing, Program, Residency, Slot};
use crate::{Error, Precision};

/// Weights, packed once and shared by all programs of a model.
///
/// What a packed file holds is used where it lies. Panels that are made here are copies, so the pages of the file that
/// they came from are given back at once: at no time do more than a few tensors exist twice.
#[derive(Debug, Default)]
pub struct Weights {
    prepared: HashMap<Slot, PackedWeight>,
    flow: Option<Flow>,
}

impl Weights {
    /// Let those weights of `program` flow that `residency` says, and the others of the file come in time to stay. Small
    /// ones must then not lie in the file, where a touch brings their neighbours into memory.
    pub(super) fn flow(&mut self, program: &Program, residency: &Residency) -> Result<(), Error> {
        let flows: HashSet<&Slot> = residency.flowing.iter().map(|id| program.slot(*id)).collect();
        if flows.is_empty()
            || self
                .flow
                .as_ref()
                .is_some_and(|flow| flow.has_all(flows.iter().map(|s| (*s).clone())))
        {
            return Ok(());
        }
        let (mut small, mut items) = (Vec::new(), Vec::new());
        for slot in &program.slots {
            match (slot.packing, slot.weight.packed()) {
                (Packing::Vector, Some(packed)) => small.push((slot, packed)),
                (Packing::Panels(..), Some(packed)) => items.push(Item {
                    slot: slot.clone(),
                    weight: packed.clone(),
                    stays: !flows.contains(slot),
                }),
                _ => {}
            }
        }
        for (_, packed) in &small {
            packed.advise_will_need();
        }
        for (slot, packed) in small {
            let memory = |error| Error::Memory { bytes: packed.form().bytes(), error };
            self.prepared.insert(slot.clone(), packed.to_owned_memory().map_err(memory)?);
        }
        PackedWeight::drop_files(items.iter().map(|item| &item.weight));
        self.prepared.extend(items.iter().map(|item| (item.slot.clone(), item.weight.clone())));
        let memory = |error| Error::Memory { bytes: residency.window, error };
        self.flow = Some(Flow::new(items, residency.window).map_err(memory)?);
        Ok(())
    }

    pub(super) fn need(&self, slots: &[&Slot]) {
        if let Some(flow) = &self.flow {
            flow.need(slots.iter().copied());
        }
    }

    pub(super) fn done(&self, slots: &[&Slot]) {
        if let Some(flow) = &self.flow {
            flow.done(slots.iter().copied());
        }
    }

    pub(super) fn add(&mut self, slot: &Slot, cpu: &kernels::Cpu) -> Result<(), Error> {
        if !self.prepared.contains_key(slot) {
            self.prepared.insert(slot.clone(), prepared(slot, form(slot), cpu)?);
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, slot: &Slot) {
        self.prepared.remove(slot);
    }

    pub(super) fn vector(&self, slot: &Slot) -> &[f32] {
        self.get(slot, PackedWeight::vector)
    }

    pub(super) fn rows(&self, slot: &Slot) -> TensorView {
        self.get(slot, PackedWeight::rows)
    }

    pub(super) fn panels(&self, slot: &Slot) -> Panels<'_> {
        self.get(slot, PackedWeight::panels)
    }

    /// The units of whole numbers; `None` where a slot has real ones.
    pub(super) fn dequantize<'a>(
        &'a self,
        slot: &Slot,
        ranges: Option<Ranges<'a>>,
    ) -> Option<Dequantize<'a>> {
        self.prepared.get(slot)?.dequantize(ranges)
    }

    fn get<'a, T>(&'a self, slot: &Slot, part: impl Fn(&'a PackedWeight) -> Option<T>) -> T {
        let found = self.prepared.get(slot).and_then(part);
        found.unwrap_or_else(|| panic!("{:?} is prepared before a program runs", slot.weight))
    }
}

/// What lies in a file leaves this process's memory, so that no two networks of a picture are in it together.
impl Drop for Weights {
    fn drop(&mut self) {
        // Its reader would bring back what is dropped here.
        let evicts = self.flow.take().is_some_and(|flow| flow.evicts());
        if evicts {
            self.prepared.values().for_each(PackedWeight::evict);
        }
        PackedWeight::drop_files(self.prepared.values());
    }
}

/// A slot's weight from a packed file as it lies there, else brought into a form.
pub(super) fn prepared(slot: &Slot, form: Form, cpu: &kernels::Cpu) -> Result<PackedWeight, Error> {
    let Some(packed) = slot.weight.packed() else {
        return pack(slot, form, cpu);
    };
    if !serves(packed.form().kind, slot.packing) {
        let name = slot.weight.name().to_owned();
        return Err(match packed.form().kind {
            Kind::Absent => Error::Absent { name },
            kind => Error::Form { name, found: kind.to_string() },
        });
    }
    // Of a table, a few rows are read.
    if slot.packing != Packing::Rows {
        packed.advise_will_need();
    }
    Ok(packed.clone())
}

/// Whether a stored form is one that a slot can read. Panels of two bytes meet real activations of either precision.
fn serves(kind: Kind, packing: Packing) -> bool {
    match (kind, packing) {
        (Kind::Vector, Packing::Vector) | (Kind::Rows(_), Packing::Rows) => true,
        (Kind::Panels(stored, numbers), Packing::Panels(order, wanted)) => {
            stored == order
                && match (numbers, wanted) {
                    (Numbers::Float(Dtype::F16 | Dtype::Bf16), program::Numbers::Float(_)) => true,
                    (Numbers::Integer(stored), program::Numbers::Integer(wanted)) => {
                        stored == wanted
                    }
                    _ => false,
                }
        }
        _ => false,
    }
}

/// What a slot's weight is or becomes: in `f32` panels of the checkpoint's own width, so that nothing grows.
///
/// A tensor that cannot be read is reported when it is packed.
pub(super) fn form(slot: &Slot) -> Form {
    let weight = &slot.weight;
    if let Some(packed) = weight.packed() {
        return packed.form().clone();
    }
    let stored = weight.dtype().unwrap_or(Dtype::F32);
    let kind = match slot.packing {
        Packing::Vector => Kind::Vector,
        Packing::Rows => Kind::Rows(stored),
        Packing::Panels(order, numbers) => {
            let numbers = match numbers {
                program::Numbers::Integer(scheme) => Numbers::Integer(scheme),
                program::Numbers::Float(Precision::Bf16) => Numbers::Float(Dtype::Bf16),
                program::Numbers::Float(Precision::F32) => Numbers::Float(stored),
            };
            Kind::Panels(order, numbers)
        }
    };
    Form { shape: weight.shape().to_vec(), kind }
}

/// The same as a packed file keeps it: real numbers take two bytes, as they do in most models.
pub(super) fn packed_form(slot: &Slot) -> Form {
    let Form { shape, kind } = form(slot);
    let kind = match kind {
        Kind::Panels(order, Numbers::Float(_)) if slot.weight.packed().is_none() => {
            let is_half = slot.weight.stored_dtype() == Some(Dtype::F16);
            Kind::Panels(order, Numbers::Float(if is_half { Dtype::F16 } else { Dtype::Bf16 }))
        }
        kind => kind,
    };
    Form { shape, kind }
}
