//! A model → what each layer's formats do to its pictures.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::HumanDuration;
use pipeline::probe::{Look, Probe};
use pipeline::{Model, Plan, Request, TextToImage, Watch};
use quant::Group;
use quant::sensitivity::{FLOAT, Header, Record, Sensitivity, Shard, VERSION, line};
use tensor::{Cpu, LayerFormat, Precision, Scheme};

use super::{drawing, engine};
use crate::args;
use crate::output::{self, Target};
use crate::report::{self, Details, Progress};

/// Set by Ctrl-C; looked at before every operation.
static CANCEL: AtomicBool = AtomicBool::new(false);

/// Measure, or put together what was measured.
pub(crate) fn run(args: &args::Sensitivity) -> Result<()> {
    let target = Target::new(&args.output);
    ensure!(target != Target::Stdout, "-o must name a file, so that interrupted work can go on");
    target.check()?;
    if !args.merge.is_empty() {
        let parts: Vec<Sensitivity> =
            args.merge.iter().map(|path| Sensitivity::read(path)).collect::<Result<_, _>>()?;
        return target.write_text(&Sensitivity::merge(&parts)?.to_text());
    }
    ctrlc::set_handler(|| CANCEL.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")?;
    let model = engine::model(&args.source)?;
    let cpu = engine::cpu(args.threads)?;
    let what = What {
        request: drawing::pictures(&args.pictures, 0)?,
        formats: &args.formats,
        look: if args.all_pictures { Pictures::OfAll } else { Pictures::OfContent },
        shard: args.shard,
    };
    what.measure(&model, &cpu, (&args.output, &CANCEL))
}

/// What is to be measured.
pub(crate) struct What<'a> {
    /// The pictures that are drawn.
    pub(crate) request: Request,
    /// Formats of each layer beside real numbers.
    pub(crate) formats: &'a [Scheme],
    /// Whose pictures are compared.
    pub(crate) look: Pictures,
    /// The part of the layers.
    pub(crate) shard: Option<Shard>,
}

/// Layers whose pictures are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pictures {
    /// Those that carry content.
    OfContent,
    /// All.
    OfAll,
}

impl What<'_> {
    /// Measure all layers into a file, or go on where it was interrupted.
    pub(crate) fn measure(
        &self,
        model: &Model,
        cpu: &Cpu,
        (path, cancel): (&Path, &AtomicBool),
    ) -> Result<()> {
        let progress = Progress::new(Details::None);
        let observer = |event| progress.tell(event);
        let watch = Watch { cancel: Some(cancel), observer: Some(&observer) };
        let plan = Plan::float(Precision::F32);
        let pipeline = TextToImage::new(cpu, model, &plan);
        let mut probe = Probe::new(&pipeline, &self.request, &watch)?;
        let start = Instant::now();
        let header = self.header(model, &mut probe)?;
        let pace = start.elapsed();
        if Sensitivity::read(path).is_ok_and(|done| done.header == header) {
            return Ok(());
        }
        let mut file = Unfinished::open(path, &header)?;
        let due: Vec<(usize, usize)> = header
            .places()
            .flat_map(|place| (0..header.formats.len()).map(move |format| (place, format)))
            .skip(file.records)
            .collect();
        self.estimate(&probe, &due, pace);
        let total = header.places().count() * header.formats.len();
        for (place, format) in due {
            progress.work("measure", file.records, total);
            file.append(&self.record(&mut probe, (place, format), &header)?)?;
        }
        progress.finish();
        file.finish(path)
    }

    fn header(&self, model: &Model, probe: &mut Probe<'_, '_, Cpu>) -> Result<Header> {
        let (settings, request) = (probe.settings().clone(), &self.request);
        let formats = self.formats.iter().map(ToString::to_string);
        Ok(Header {
            version: VERSION,
            model: model.name.clone(),
            prompts: request.prompts.clone(),
            pictures: request.pictures,
            seed: request.seed,
            width: settings.width,
            height: settings.height,
            steps: settings.steps,
            guidance: settings.guidance,
            formats: std::iter::once(FLOAT.to_owned()).chain(formats).collect(),
            layers: probe.layers().iter().map(|layer| layer.name.clone()).collect(),
            rounding: probe.rounding()?,
            shard: self.shard,
        })
    }

    /// One format of one layer. Real numbers are as far away as their rounding to 16 bits takes them.
    fn record(
        &self,
        probe: &mut Probe<'_, '_, Cpu>,
        (place, format): (usize, usize),
        header: &Header,
    ) -> Result<Record> {
        let layer = probe.layers()[place].clone();
        let scheme = format.checked_sub(1).map(|i| self.formats[i]);
        let numbers = scheme.map_or(LayerFormat::Float(Precision::Bf16), LayerFormat::Integer);
        let look = self.look.at(&layer.name);
        let effect = match scheme {
            Some(_) => probe.measure(&layer, numbers, look)?,
            None => header.floor(),
        };
        let bytes = probe.bytes(&layer, numbers) as u64;
        let (name, weights) = (layer.name, layer.weights as u64);
        Ok(Record {
            layer: name,
            place,
            format: header.formats[format].clone(),
            bytes,
            weights,
            effect,
        })
    }

    /// Say how long it will take, from the time that all layers together took.
    fn estimate(&self, probe: &Probe<'_, '_, Cpu>, due: &[(usize, usize)], pace: Duration) {
        let layers = probe.layers();
        let measured = due.iter().filter(|(_, format)| *format > 0);
        let work: f64 =
            measured.clone().map(|&(p, _)| probe.multiply_adds(&layers[p]) as f64).sum();
        let whole = layers.first().map_or(1.0, |layer| probe.multiply_adds(layer) as f64);
        let time = pace.mul_f64(work / whole.max(1.0));
        report::say(&format!(
            "{} layers, {} formats, {} pictures: about {}",
            layers.len(),
            self.formats.len(),
            self.request.total(),
            HumanDuration(time)
        ));
    }
}

impl Pictures {
    fn at(self, layer: &str) -> Look {
        if self == Self::OfAll || Group::of(layer) == Group::Content {
            Look::Picture
        } else {
            Look::Prediction
        }
    }
}

/// A file that grows line by line beside its target.
struct Unfinished {
    path: PathBuf,
    file: File,
    records: usize,
}

impl Unfinished {
    /// Begin a file, or go on with the one that is there if it was measured alike.
    fn open(target: &Path, header: &Header) -> Result<Self> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let path = target.with_file_name(name);
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        let there = Sensitivity::from_text(&there).ok();
        let there = there.filter(|(found, _)| found.header == *header);
        let failed =
            || format!("cannot write {}; free some space or choose another place", path.display());
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(false).open(&path).with_context(failed)?;
        let (records, length) = there.map_or((0, 0), |(found, end)| (found.records.len(), end));
        file.set_len(length as u64).with_context(failed)?;
        file.seek(SeekFrom::End(0)).with_context(failed)?;
        if length == 0 {
            file.write_all(line(header).as_bytes()).with_context(failed)?;
        }
        Ok(Self { path, file, records })
    }

    fn append(&mut self, record: &Record) -> Result<()> {
        self.file.write_all(line(record).as_bytes()).with_context(|| {
            format!(
                "cannot write {}; free some space and run this again to go on",
                self.path.display()
            )
        })?;
        self.records += 1;
        Ok(())
    }

    fn finish(self, target: &Path) -> Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, target).with_context(|| output::failed(target))
    }
}
