//! Weights as whole numbers in panels, with their units.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use kernels::format::{PANEL, PanelFormat, PanelLayout, Panels, Rows, int};
use kernels::matmul::{Dequantize, Ranges};

use crate::Error;
use crate::device::by_tap;
use crate::file::TensorView;
use crate::quantizer::Row;
use crate::scheme::{Granularity, WeightBits, WeightScheme};
use os::Region;

/// Panels of whole numbers.
#[derive(Debug)]
pub(super) struct Integers {
    layout: PanelLayout,
    panels: Region,
    /// The units of the lanes.
    scales: Vec<f32>,
    /// The sums of the weights of each lane.
    sums: Vec<f32>,
    multipliers: Option<Vec<u8>>,
}

/// The format of panels of these bits.
pub(super) fn format(scheme: WeightScheme) -> PanelFormat {
    match scheme.bits {
        WeightBits::Two => PanelFormat::Int2,
        WeightBits::Four => PanelFormat::Int4,
        WeightBits::Eight => PanelFormat::Int8,
    }
}

/// Bytes that weights of this layout keep in memory.
pub(super) fn resident_bytes(scheme: WeightScheme, layout: &PanelLayout) -> usize {
    let multipliers = match scheme.granularity {
        Granularity::Group => layout.panels() * layout.groups() * PANEL,
        Granularity::Channel => 0,
    };
    layout.bytes() + 8 * layout.n.next_multiple_of(16) + multipliers
}

impl Integers {
    /// Quantize a weight `[outputs, inputs, taps]`, of which `inputs` are real and the rest of the
    /// layout's channels is padding.
    pub(super) fn new(
        cpu: &kernels::Cpu,
        (name, view, inputs): (&str, &TensorView, usize),
        (scheme, rows): (WeightScheme, Rows),
        layout: PanelLayout,
    ) -> Result<Self, Error> {
        let bytes = layout.bytes();
        let mut panels = Region::new(bytes).map_err(|error| Error::Memory { bytes, error })?;
        let mut units = vec![Units::default(); layout.panels()];
        let length = layout.row_bytes(layout.depth(), PANEL);
        let packed = (&mut panels.as_mut_slice()[..bytes], length);
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
                Row::new(cpu, scheme, layout.channels, &weights)
            });
            let rows: Vec<Row> = rows.collect();
            let codes: Vec<&[i8]> = rows.iter().map(|row| &row.codes[..]).collect();
            int::pack(&layout, panel, &codes, out);
            units[0] = Units::new(&layout, &rows);
        });
        if !finite.into_inner() {
            return Err(Error::NonFiniteWeight { name: name.to_owned() });
        }
        let all = |part: fn(&Units) -> &Vec<f32>| units.iter().flat_map(part).copied().collect();
        let (scales, sums) = (all(|units| &units.scales), all(|units| &units.sums));
        let grouped = scheme.granularity == Granularity::Group;
        let multipliers =
            grouped.then(|| units.iter().flat_map(|units| &units.multipliers).copied().collect());
        Ok(Self { layout, panels, scales, sums, multipliers })
    }

    pub(super) fn panels(&self) -> Panels<'_> {
        Panels {
            layout: self.layout,
            bytes: &self.panels.as_slice()[..self.layout.bytes()],
            multipliers: self.multipliers.as_deref(),
        }
    }

    pub(super) fn dequantize<'a>(&'a self, ranges: Option<Ranges<'a>>) -> Dequantize<'a> {
        Dequantize { scales: &self.scales, sums: &self.sums, ranges }
    }

    pub(super) fn bytes(&self) -> usize {
        let units = 4 * (self.scales.len() + self.sums.len());
        self.layout.bytes() + units + self.multipliers.as_ref().map_or(0, Vec::len)
    }
}

/// The units of one panel.
#[derive(Clone, Debug, Default)]
struct Units {
    scales: Vec<f32>,
    sums: Vec<f32>,
    /// `[groups, 64]`.
    multipliers: Vec<u8>,
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
