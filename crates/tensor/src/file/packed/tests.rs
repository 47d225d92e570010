//! Packed files: what was written is read back where it lies, and nothing damaged is believed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use half::f16;

use super::{Contents, PackedFile, Writer};
use crate::device::Cpu;
use crate::file::view::Bytes;
use crate::file::{Checkpoint, Dtype, SafeTensors, TensorView};
use crate::packed::{Form, Kind};
use crate::program::{Numbers, Packing, PanelOrder, Slot};
use crate::{Precision, Weight};

/// Weights of every form, and the packed file of them.
fn example() -> (Vec<Slot>, Vec<u8>) {
    let numbers = |shape: &[usize]| {
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7).sin()).collect();
        TensorView::from_f32(shape, &values)
    };
    let halves = |shape: &[usize]| {
        let numbers = numbers(shape).to_f32();
        let bytes = numbers.into_iter().flat_map(|x| f16::from_f32(x).to_le_bytes()).collect();
        TensorView::new(Dtype::F16, shape.to_vec(), Bytes::Owned(Arc::new(bytes)))
    };
    let panels =
        |order, scheme: &str| Packing::Panels(order, Numbers::Integer(scheme.parse().unwrap()));
    let real = Packing::Panels(PanelOrder::Natural, Numbers::Float(Precision::Bf16));
    let weights: [(&str, &[usize], Packing); 8] = [
        ("conv_in.weight", &[20, 4, 3, 3], panels(PanelOrder::Natural, "w8")),
        ("conv_in.bias", &[20], Packing::Vector),
        ("proj.weight", &[96, 70], panels(PanelOrder::Gated, "w4")),
        ("out.weight", &[70, 130], panels(PanelOrder::Natural, "w2")),
        ("odd.weight", &[3, 5], panels(PanelOrder::Natural, "w4c")),
        ("real.weight", &[17, 7], real),
        ("half.weight", &[17, 7], real),
        ("table.weight", &[5, 3], Packing::Rows),
    ];
    let views = weights.iter().map(|(name, shape, _)| {
        let view = if *name == "half.weight" { halves(shape) } else { numbers(shape) };
        ((*name).to_owned(), view)
    });
    let source = Checkpoint::from_views("example", views.collect::<Vec<_>>());
    let slots: Vec<Slot> = weights
        .iter()
        .map(|(name, shape, packing)| Slot {
            weight: Weight::new(&source, name, shape),
            packing: *packing,
        })
        .collect();
    let bytes = packed(&slots);
    (slots, bytes)
}

fn packed(slots: &[Slot]) -> Vec<u8> {
    let cpu = Cpu::detect(2);
    let entry =
        |slot: &Slot| ("unet".to_owned(), slot.weight.name().to_owned(), cpu.packed_form(slot));
    let absent = Form { shape: vec![9, 9], kind: Kind::Absent };
    let mut weights: Vec<_> = slots.iter().map(entry).collect();
    weights.push(("unet".to_owned(), "never.weight".to_owned(), absent));
    let contents = Contents {
        metadata: BTreeMap::from([("note".to_owned(), "an \"example\"".to_owned())]),
        plan: "version = 1\n".to_owned(),
        files: vec![("unet/config.json".to_owned(), b"{}\n\n".to_vec())],
        weights,
    };
    let mut writer = Writer::new(Vec::new(), &contents).unwrap();
    for slot in slots {
        writer.weight(&cpu.packed(slot).unwrap()).unwrap();
    }
    writer.finish().unwrap()
}

fn open(bytes: &[u8]) -> Result<PackedFile, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let said = |error: crate::file::Error| error.to_string();
    let file = SafeTensors::open(file.path()).map_err(said)?;
    assert!(PackedFile::is_packed(&file));
    PackedFile::new(file).map_err(said)
}

#[test]
fn weights_lie_in_the_file_as_they_lie_in_memory() {
    let (slots, bytes) = example();
    let file = open(&bytes).unwrap();
    assert_eq!(file.file("unet/config.json"), Some(&b"{}\n\n"[..]));
    assert_eq!(file.file("conv_in.weight"), None);
    assert_eq!(file.plan(), "version = 1\n");
    assert_eq!(file.metadata()["note"], "an \"example\"");
    let (cpu, weights) = (Cpu::detect(1), file.component("unet").unwrap());
    for slot in &slots {
        let made = cpu.packed(slot).unwrap();
        let name = slot.weight.name();
        let stored = weights.packed(name).unwrap();
        assert_eq!(stored.form(), made.form(), "{name}");
        assert!(stored.parts().eq(made.parts()), "{name}");
        // The same slot over the file: nothing is made.
        let weight = Weight::new(&weights, name, slot.weight.shape());
        let again = cpu.packed(&Slot { weight, packing: slot.packing }).unwrap();
        assert!(again.parts().map(<[u8]>::as_ptr).eq(stored.parts().map(<[u8]>::as_ptr)));
    }
    file.verify(&|_, _| ()).unwrap();
}

#[test]
fn the_same_weights_make_the_same_bytes() {
    let (slots, bytes) = example();
    assert_eq!(packed(&slots), bytes);
}

#[test]
fn panels_start_on_pages_and_the_rest_on_cache_lines() {
    let (_, bytes) = example();
    let file = open(&bytes).unwrap();
    for (name, place) in file.file.in_order() {
        if name.ends_with(".panels") {
            assert!(place.range.start.is_multiple_of(4096), "{name}");
        } else if !name.contains("pad/") && !name.contains(".json") {
            assert!(place.range.start.is_multiple_of(64), "{name}");
        }
    }
    assert!(file.file.header_bytes().len().is_multiple_of(4096));
}

#[test]
fn weights_that_were_left_out_or_are_packed_otherwise_are_named() {
    let (_, bytes) = example();
    let weights = open(&bytes).unwrap().component("unet").unwrap();
    let fault = |name: &str, shape: &[usize], packing| {
        let weight = Weight::new(&weights, name, shape);
        Cpu::detect(1).packed(&Slot { weight, packing }).unwrap_err().to_string()
    };
    assert!(
        fault("never.weight", &[9, 9], Packing::Vector).contains("`never.weight` was left out")
    );
    let real = Packing::Panels(PanelOrder::Natural, Numbers::Float(Precision::F32));
    assert!(fault("out.weight", &[70, 130], real).contains("was packed as panels w2"));
    assert!(weights.tensor("out.weight").unwrap_err().to_string().contains("packed already"));
}

#[test]
fn every_flipped_bit_is_found() {
    let (_, bytes) = example();
    for at in (0..bytes.len()).step_by(97) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let damaged = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(damaged.path(), bytes).unwrap();
        assert!(verified(damaged.path()).is_err(), "byte {at}");
    }
}

/// Everything that a reader does with a file.
fn verified(path: &Path) -> Result<(), String> {
    let said = |error: crate::file::Error| error.to_string();
    let file = SafeTensors::open(path).map_err(said)?;
    let file = PackedFile::new(file).map_err(said)?;
    file.component("unet").map_err(said)?;
    file.verify(&|_, _| ()).map_err(said)
}

#[test]
fn other_versions_and_hostile_lists_are_refused() {
    let (_, bytes) = example();
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = bytes.windows(from.len()).position(|found| found == from.as_bytes()).unwrap();
        let mut bytes = bytes.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        open(&bytes).and_then(|file| file.component("unet").map_err(|error| error.to_string()))
    };
    let fault = |from: &str, to: &str| replaced(from, to).unwrap_err();
    let version = r#""mixdq.version":"3""#;
    assert!(fault(version, r#""mixdq.version":"7""#).contains("has version 7"));
    assert!(fault(version, r#""mixdq.version":"x""#).contains("not a number"));
    assert!(fault("gated w4", "gated w8").contains("does not fit the form"));
    assert!(fault("gated w4", "gated w3").contains("unknown weights"));
    assert!(fault("[20,4,3,3]", "[20,0,3,3]").contains("cannot have the shape"));
    assert!(fault("[20,4,3,3]", "[99999999]").contains("cannot have the shape"));
    assert!(fault("[9,9]", "[0,9]").contains("cannot have the shape"));
    assert!(fault("conv_in.weight\\\"", "conv_on.weight\\\"").contains("lacks `unet/conv_on"));
    assert!(fault("out.weight.sums", "out.weight.sumz").contains("lacks `unet/out.weight.sums`"));
}
