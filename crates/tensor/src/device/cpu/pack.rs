//! The numbers of a checkpoint → what kernels read.

use kernels::format::{Rows, Source};

use super::integers;
use crate::Error;
use crate::device::vector;
use crate::file::view::Bytes;
use crate::file::{Dtype, TensorView};
use crate::packed::{Form, Kind, Numbers, PackedWeight, Part};
use crate::program::{PanelOrder, Slot};
use os::Region;

/// Bring the weight of `slot` into `form`.
pub(super) fn pack(slot: &Slot, form: Form, cpu: &kernels::Cpu) -> Result<PackedWeight, Error> {
    let parts = match form.kind {
        Kind::Vector => vec![(Part::Values, Bytes::of_numbers(vector(&slot.weight)?))],
        Kind::Rows(_) => vec![(Part::Values, slot.weight.view()?.shared_bytes())],
        Kind::Absent => Vec::new(),
        Kind::Panels(order, numbers) => {
            let view = slot.weight.view()?;
            let parts = match numbers {
                Numbers::Float(_) => vec![(Part::Panels, floats(slot, &form, &view, cpu)?)],
                Numbers::Integer(scheme) => {
                    let layout = form.layout().expect("panels have a layout");
                    integers::quantize(cpu, (&slot.weight, &view), (scheme, rows(order)), layout)?
                }
            };
            view.drop_pages();
            parts
        }
    };
    Ok(PackedWeight::new(form, parts))
}

/// Panels of real numbers.
fn floats(slot: &Slot, form: &Form, view: &TensorView, cpu: &kernels::Cpu) -> Result<Bytes, Error> {
    let layout = form.layout().expect("panels have a layout");
    let Kind::Panels(order, _) = form.kind else { unreachable!("panels have an order") };
    let mut region = region(layout.bytes())?;
    let (rows, out) = (rows(order), region.as_mut_slice());
    let mut pack = |source: Source<'_>| kernels::format::pack(cpu, (source, rows), layout, out);
    let result = match view.dtype {
        Dtype::F32 => aligned(view.bytes(), |n| pack(Source::F32(n))),
        Dtype::F16 => aligned(view.bytes(), |n| pack(Source::F16(n))),
        Dtype::Bf16 => aligned(view.bytes(), |n| pack(Source::Bf16(n))),
    };
    result.map_err(|_| Error::NonFiniteWeight { name: slot.weight.name().to_owned() })?;
    Ok(Bytes::of_region(region))
}

/// Memory for panels.
pub(super) fn region(bytes: usize) -> Result<Region, Error> {
    Region::new(bytes).map_err(|error| Error::Memory { bytes, error })
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
