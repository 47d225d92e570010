//! A time for a picture → the formats with which it can be drawn in that time on this machine.
//!
//! Each component is timed with all its layers in one format after the other. A layer then costs its time, where a file's budget has
//! it cost its bytes; what belongs to no layer, such as norms and attention, costs the same whatever is chosen.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use pipeline::probe::Probe;
use pipeline::{Plan, Request, TextToImage, Watch};
use quant::formats::{self, Formats, Layers, Metric};
use quant::sensitivity::{FLOAT, Record, Sensitivity, line};
use serde::{Deserialize, Serialize};
use tensor::{LayerFormat, Precision};

use super::search::Engine;
use crate::commands::engine;
use crate::commands::sensitivity::What;
use crate::output;
use crate::report::{self, Details, Progress, Unmet};

/// How long layers take in each format, as the work folder keeps it: interrupted work ends with the plan that it would have ended with.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Times {
    /// A checksum of what was timed: the model, its layers' formats, the size of pictures, and the number of steps.
    of: u32,
    /// Seconds that no format changes.
    rest: f64,
    /// Seconds of each layer, by component, layer and format.
    layers: BTreeMap<String, BTreeMap<String, BTreeMap<String, f64>>>,
}

/// The choices by which a picture takes no longer than this.
pub(super) fn candidates(
    (what, metric): (&What, Metric),
    (limit, path): (Duration, &Path),
    measured: &Sensitivity,
    engine: Engine<'_>,
) -> Result<Vec<Formats>> {
    let header = &measured.header;
    let size = [header.width, header.height];
    let of = (header.fingerprint, &header.components, size, header.steps);
    let of = crc32fast::hash(line(&of).as_bytes());
    let there = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Times>(&text).ok());
    let times = if let Some(times) = there.filter(|there| there.of == of) {
        times
    } else {
        let times = Times { of, ..time(&what.request, measured, engine)? };
        output::save(path, &serde_json::to_vec_pretty(&times)?)?;
        times
    };
    let found = times.candidates(measured, limit, metric);
    if found.is_empty() {
        let least = times.rest + formats::least_bytes(&times.instead_of_bytes(measured)) / 1e6;
        let fault = format!(
            "no formats draw a picture in {} ms on this machine; the least is about {:.0} ms",
            limit.as_secs_f64() * 1e3,
            least * 1e3
        );
        return Err(Unmet(fault).into());
    }
    Ok(found)
}

/// Time all components in all their formats.
fn time(
    request: &Request,
    measured: &Sensitivity,
    (model, cpu, cancel): Engine<'_>,
) -> Result<Times> {
    let progress = Progress::new(Details::None);
    let observer = |event| progress.tell(event);
    let watch = Watch { cancel: Some(cancel), observer: Some(&observer), ..Watch::default() };
    let real = Plan::float(Precision::F32);
    let pipeline = TextToImage::new(cpu, model, &real);
    let request =
        Request { prompts: request.prompts[..1].to_vec(), pictures: 1, ..request.clone() };
    let mut probe = Probe::new(&pipeline, &request, &watch)?;
    let precision = engine::faster(cpu);
    let mut times = Times::default();
    for component in &measured.header.components {
        let layers = times.layers.entry(component.name.clone()).or_default();
        let mut rest = Duration::ZERO;
        for format in &component.formats {
            let parsed: Option<LayerFormat> = if format == FLOAT {
                None
            } else {
                Some(format.parse().map_err(anyhow::Error::msg)?)
            };
            let taken = probe.times(&component.name, (parsed, precision))?;
            let own: Duration = taken.layers.values().sum();
            if parsed.is_none() {
                rest = taken.whole.saturating_sub(own);
                times.rest += rest.as_secs_f64();
            }
            // Inputs become whole numbers beside some layers: their time is that of all layers in proportion.
            let all = taken.whole.saturating_sub(rest).as_secs_f64();
            let share = all / own.as_secs_f64().max(f64::MIN_POSITIVE);
            for (layer, time) in taken.layers {
                let formats: &mut BTreeMap<_, _> = layers.entry(layer).or_default();
                formats.insert(format.clone(), time.as_secs_f64() * share);
            }
        }
    }
    progress.finish();
    let every: f64 = times.layers.values().flat_map(BTreeMap::values).map(|f| f[FLOAT]).sum();
    report::say(&format!(
        "a picture with real numbers takes {:.0} ms, {:.0} of them in layers that can be rounded",
        (times.rest + every) * 1e3,
        every * 1e3
    ));
    Ok(times)
}

impl Times {
    /// The choices that keep to a time, with the bytes that they take.
    fn candidates(&self, measured: &Sensitivity, limit: Duration, metric: Metric) -> Vec<Formats> {
        let timed = self.instead_of_bytes(measured);
        let left = (limit.as_secs_f64() - self.rest) * 1e6;
        let mut found = formats::candidates(&timed, left, metric);
        for formats in &mut found {
            let is_chosen = |record: &&Record| chosen(&formats.layers, record);
            formats.bytes = measured.records.iter().filter(is_chosen).map(|r| r.bytes).sum();
        }
        found
    }

    /// The same records, with microseconds for bytes.
    fn instead_of_bytes(&self, measured: &Sensitivity) -> Sensitivity {
        let mut timed = measured.clone();
        for record in &mut timed.records {
            let seconds = self.layers[&record.component][&record.layer][&record.format];
            record.bytes = (seconds * 1e6).round() as u64;
        }
        timed
    }
}

/// Whether these formats have what a record is about.
fn chosen(layers: &Layers, record: &Record) -> bool {
    layers.get(&record.component).and_then(|own| own.get(&record.layer)) == Some(&record.format)
}
