//! Weights in the forms that the kernels of the CPU read.

use std::collections::HashMap;

use kernels::format::{PanelFormat, PanelLayout, Panels, Rows, Source, pack};

use super::Cpu;
use super::integers::{self, Integers};
use crate::device::vector;
use crate::file::{Dtype, TensorView};
use crate::program::{Numbers, Packing, PanelOrder, Slot};
use crate::{Error, Precision};
use os::Region;

/// Weights, packed once and shared by all programs of a model.
///
/// Panels are copies, so the pages of the file that they came from are given back at once: at no time do more than a
/// few tensors exist twice.
#[derive(Debug, Default)]
pub struct Weights {
    prepared: HashMap<Slot, Prepared>,
}

#[derive(Debug)]
enum Prepared {
    Vector(Vec<f32>),
    Rows(TensorView),
    Panels(PanelLayout, Region),
    Integers(Integers),
}

impl Weights {
    /// Bytes that they keep in memory; rows of embeddings stay in the file.
    pub fn bytes(&self) -> usize {
        self.prepared.values().map(Prepared::bytes).sum()
    }

    pub(super) fn add(&mut self, slot: &Slot, cpu: &kernels::Cpu) -> Result<(), Error> {
        if self.prepared.contains_key(slot) {
            return Ok(());
        }
        let prepared = match slot.packing {
            Packing::Vector => Prepared::Vector(vector(&slot.weight)?),
            Packing::Rows => Prepared::Rows(slot.weight.view()?),
            Packing::Panels(order, numbers) => {
                let view = slot.weight.view()?;
                let prepared = match numbers {
                    Numbers::Float(_) => packed(slot, order, &view, cpu)?,
                    Numbers::Integer(scheme) => {
                        let layout = Cpu::layout(slot, format(slot), order);
                        let weight = (slot.weight.name(), &view, slot.weight.shape()[1]);
                        Prepared::Integers(Integers::new(
                            cpu,
                            weight,
                            (scheme, rows(order)),
                            layout,
                        )?)
                    }
                };
                view.drop_pages();
                prepared
            }
        };
        self.prepared.insert(slot.clone(), prepared);
        Ok(())
    }

    pub(super) fn vector(&self, slot: &Slot) -> &[f32] {
        match self.prepared.get(slot) {
            Some(Prepared::Vector(numbers)) => numbers,
            _ => panic!("{:?} is prepared before a program runs", slot.weight),
        }
    }

    pub(super) fn rows(&self, slot: &Slot) -> &TensorView {
        match self.prepared.get(slot) {
            Some(Prepared::Rows(view)) => view,
            _ => panic!("{:?} is prepared before a program runs", slot.weight),
        }
    }

    pub(super) fn panels(&self, slot: &Slot) -> Panels<'_> {
        match self.prepared.get(slot) {
            Some(Prepared::Panels(layout, region)) => {
                let bytes = &region.as_slice()[..layout.bytes()];
                Panels { layout: *layout, bytes, multipliers: None }
            }
            Some(Prepared::Integers(integers)) => integers.panels(),
            _ => panic!("{:?} is prepared before a program runs", slot.weight),
        }
    }
}

impl Weights {
    /// The units of whole numbers; `None` where a slot has real ones.
    pub(super) fn dequantize<'a>(
        &'a self,
        slot: &Slot,
        ranges: Option<kernels::matmul::Ranges<'a>>,
    ) -> Option<kernels::matmul::Dequantize<'a>> {
        match self.prepared.get(slot) {
            Some(Prepared::Integers(integers)) => Some(integers.dequantize(ranges)),
            _ => None,
        }
    }
}

impl Prepared {
    fn bytes(&self) -> usize {
        match self {
            Self::Vector(numbers) => size_of_val(numbers.as_slice()),
            Self::Rows(_) => 0,
            Self::Panels(_, region) => region.len(),
            Self::Integers(integers) => integers.bytes(),
        }
    }
}

/// The number format of a slot's panels: in `f32` that of the checkpoint, so that nothing grows.
///
/// A tensor that cannot be read is reported when it is packed.
pub(super) fn format(slot: &Slot) -> PanelFormat {
    match slot.packing {
        Packing::Panels(_, Numbers::Integer(scheme)) => integers::format(scheme),
        Packing::Panels(_, Numbers::Float(Precision::Bf16)) => PanelFormat::Bf16,
        _ => match slot.weight.dtype() {
            Some(Dtype::F16) => PanelFormat::F16,
            Some(Dtype::Bf16) => PanelFormat::Bf16,
            Some(Dtype::F32) | None => PanelFormat::F32,
        },
    }
}

fn packed(
    slot: &Slot,
    order: PanelOrder,
    view: &TensorView,
    cpu: &kernels::Cpu,
) -> Result<Prepared, Error> {
    let layout = Cpu::layout(slot, format(slot), order);
    let bytes = layout.bytes();
    let mut region = Region::new(bytes).map_err(|error| Error::Memory { bytes, error })?;
    let rows = rows(order);
    let out = &mut region.as_mut_slice()[..bytes];
    let result = match view.dtype {
        Dtype::F32 => aligned(view.bytes(), |n| pack(cpu, (Source::F32(n), rows), layout, out)),
        Dtype::F16 => aligned(view.bytes(), |n| pack(cpu, (Source::F16(n), rows), layout, out)),
        Dtype::Bf16 => aligned(view.bytes(), |n| pack(cpu, (Source::Bf16(n), rows), layout, out)),
    };
    result.map_err(|_| Error::NonFiniteWeight { name: slot.weight.name().to_owned() })?;
    Ok(Prepared::Panels(layout, region))
}

fn rows(order: PanelOrder) -> Rows {
    match order {
        PanelOrder::Natural => Rows::Natural,
        PanelOrder::Gated => Rows::Interleaved16,
    }
}

/// See bytes as numbers; a copy only where a file's header put them at an odd place.
fn aligned<T: bytemuck::Pod, R>(bytes: &[u8], f: impl FnOnce(&[T]) -> R) -> R {
    match bytemuck::try_cast_slice(bytes) {
        Ok(numbers) => f(numbers),
        Err(_) => f(&bytemuck::pod_collect_to_vec(bytes)),
    }
}
