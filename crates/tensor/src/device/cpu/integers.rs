//! Real weights → whole numbers in panels, with their units.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use kernels::format::{PANEL, PanelLayout, Rows, int};

use super::pack::region;
use crate::device::by_tap;
use crate::file::TensorView;
use crate::file::view::Bytes;
use crate::packed::Part;
use crate::quantizer::{Quantizer, Row};
use crate::scheme::{Granularity, WeightScheme};
use crate::{Error, Weight};

/// Quantize a weight `[outputs, inputs, taps]`, whose numbers are those of `view`. Channels of the layout beyond its inputs
/// are padding.
pub(super) fn quantize(
    cpu: &kernels::Cpu,
    (weight, view): (&Weight, &TensorView),
    (scheme, rows): (WeightScheme, Rows),
    layout: PanelLayout,
) -> Result<Vec<(Part, Bytes)>, Error> {
    let mut panels = region(layout.bytes())?;
    let mut units = vec![Units::default(); layout.panels()];
    let length = layout.row_bytes(layout.depth(), PANEL);
    let packed = (panels.as_mut_slice(), length);
    let inputs = weight.shape()[1];
    let quantizer = Quantizer::new(cpu, scheme, (weight, layout.channels));
    let row = inputs * layout.taps;
    let outputs = view.count() / row.max(1);
    let finite = AtomicBool::new(true);
    cpu.threads.run_pairs(packed, (&mut units, 1), |panel, out, units| {
        let mut numbers = vec![0.0; row];
        let rows = (0..layout.width(panel)).map(|lane| {
            let weights = match rows.source(outputs, panel * PANEL + lane) {
                Some(source) => {
                    view.widen(source * row, &mut numbers);
                    if !numbers.iter().all(|x| x.is_finite()) {
                        finite.store(false, Relaxed);
                    }
                    by_tap(&numbers, layout.taps, layout.channels)
                }
                None => vec![0.0; layout.taps * layout.channels],
            };
            quantizer.row(&weights)
        });
        let rows: Vec<Row> = rows.collect();
        let codes: Vec<&[i8]> = rows.iter().map(|row| &row.codes[..]).collect();
        int::pack(&layout, panel, &codes, out);
        units[0] = Units::new(&layout, &rows);
    });
    if !finite.into_inner() {
        return Err(Error::NonFiniteWeight { name: weight.name().to_owned() });
    }
    let all = |part: fn(&Units) -> &Vec<f32>| units.iter().flat_map(part).copied().collect();
    let (scales, sums) = (all(|units| &units.scales), all(|units| &units.sums));
    let mut parts = vec![
        (Part::Panels, Bytes::of_region(panels)),
        (Part::Scales, Bytes::of_numbers(scales)),
        (Part::Sums, Bytes::of_numbers(sums)),
    ];
    if scheme.granularity == Granularity::Group {
        let multipliers = units.iter().flat_map(|units| &units.multipliers);
        let multipliers = multipliers.map(|m| m.cast_unsigned()).collect();
        parts.push((Part::Multipliers, Bytes::Owned(Arc::new(multipliers))));
    }
    Ok(parts)
}

/// The units of one panel.
#[derive(Clone, Debug, Default)]
struct Units {
    scales: Vec<f32>,
    sums: Vec<f32>,
    /// `[groups, 64]`.
    multipliers: Vec<i8>,
}

impl Units {
    fn new(layout: &PanelLayout, rows: &[Row]) -> Self {
        let groups = layout.groups();
        let mut multipliers = vec![0; groups * PANEL];
        for (lane, row) in rows.iter().enumerate() {
            for (group, &multiplier) in row.multipliers.iter().enumerate() {
                multipliers[group * PANEL + lane] = multiplier;
            }
        }
        let sums = rows.iter().map(|row| row.sum(layout.channels) as f32).collect();
        Self { scales: rows.iter().map(|row| row.scale).collect(), sums, multipliers }
    }
}
