//! A model → what each layer's formats do to its pictures.

mod unfinished;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::HumanDuration;
use pipeline::probe::{Layer, Look, Probe};
use pipeline::{FirstToken, Model, Plan, Request, TextToImage, Watch};
use quant::sensitivity::{
    Component, Effect, FLOAT, Header, Of, Record, Sensitivity, Shard, VERSION,
};
use quant::{Group, inference};
use tensor::{Cpu, LayerFormat, Precision};

use super::{drawing, engine, moments};
use crate::args;
use crate::output::{self, Target};
use crate::report::{self, Details, Progress};
use unfinished::Unfinished;

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
    let cpu = engine::cpu(args.threads)?;
    // Weights are measured as `quantize` rounds them.
    let mut model = engine::original(&args.source, &cpu)?;
    if let Some(path) = &args.moments {
        let found = moments::of_model(path, &model)?;
        model = model.with_moments(found);
    }
    let model = model.smoothed(&cpu)?;
    let what = What {
        request: drawing::pictures(&args.pictures, 0)?,
        formats: args.formats.clone(),
        text_formats: args.text_formats.clone(),
        components: args.components.clone(),
        first_token: args.first_token.map(Into::into),
        look: if args.all_pictures { PicturesOf::All } else { PicturesOf::Content },
        scope: match args.layers {
            Some(layers) => Scope::Sample(layers as usize),
            None => Scope::new(args.fast, args.time.map(Into::into)),
        },
        shard: args.shard,
        prefix_cache: !args.no_prefix_cache,
    };
    let found = what.measure(&model, &cpu, (&args.output, &CANCEL))?;
    if let Some(path) = &args.against {
        agreement(&path.display().to_string(), &found, &Sensitivity::read(path)?);
    }
    Ok(())
}

/// What is to be measured.
#[derive(Clone, Debug)]
pub(crate) struct What {
    /// The pictures that are drawn.
    pub(crate) request: Request,
    /// Formats of each layer of the UNet and the decoder beside real numbers, from fine to coarse.
    pub(crate) formats: Vec<LayerFormat>,
    /// Those of text encoders.
    pub(crate) text_formats: Vec<LayerFormat>,
    /// What is measured; all where there is nothing.
    pub(crate) components: Vec<String>,
    /// How the first token of a text is treated in all that is measured; as its size suggests where nothing is said.
    pub(crate) first_token: Option<FirstToken>,
    /// Whose pictures are compared.
    pub(crate) look: PicturesOf,
    /// How much is measured.
    pub(crate) scope: Scope,
    /// The part of the layers.
    pub(crate) shard: Option<Shard>,
    /// Whether what comes before a layer is kept for the next one.
    pub(crate) prefix_cache: bool,
}

/// Layers whose pictures are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PicturesOf {
    /// Those that carry content.
    Content,
    /// All.
    All,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What each format of each layer does to the network.
    All,
    /// The same for so many layers, spread evenly over all.
    Sample(usize),
    /// Own errors, and what one format of each layer does to the prediction of one picture.
    Fast,
    /// Own errors, and as many effects on the network as there is time for, the most telling ones.
    Within(Duration),
}

impl Scope {
    /// What was typed.
    pub(crate) fn new(fast: bool, time: Option<Duration>) -> Self {
        match (fast, time) {
            (true, _) => Self::Fast,
            (false, Some(time)) => Self::Within(time),
            (false, None) => Self::All,
        }
    }
}

impl What {
    /// Measure into a file, or go on where that was interrupted.
    pub(crate) fn measure(
        &self,
        model: &Model,
        cpu: &Cpu,
        (path, cancel): (&Path, &AtomicBool),
    ) -> Result<Sensitivity> {
        let start = Instant::now();
        let progress = Progress::new(Details::None);
        let observer = |event| progress.tell(event);
        let watch = Watch { cancel: Some(cancel), observer: Some(&observer), ..Watch::default() };
        let real = Plan::float(Precision::F32);
        let first_token = self.first_token((&TextToImage::new(cpu, model, &real), &watch))?;
        let plan = real.with_first_token(first_token);
        let pipeline = TextToImage::new(cpu, model, &plan);
        let what = self.within_time((&pipeline, &watch), path)?;
        let mut probe = Probe::new(&pipeline, &what.request, &watch)?;
        let header = what.header((model, first_token), &mut probe)?;
        let mut run = Run { probe, what: &what, progress: &progress };
        let measured = match what.scope {
            Scope::All => run.file(header, path)?,
            Scope::Sample(layers) => {
                let places = Some(header.spread(layers));
                run.file(Header { places, ..header }, path)?
            }
            Scope::Fast => {
                let glance =
                    |own: &Sensitivity| Header { of: Of::Glance, ..one_format(&own.header) };
                run.inferred(header, path, &|_, own| glance(own))?
            }
            Scope::Within(time) => {
                let some = beside(path, SOME);
                // Own errors alone say little, so half of the time is for effects, however long they took.
                let left = || time.saturating_sub(start.elapsed()).max(time / 2);
                run.inferred(header, path, &|run, own| run.selection(own, (&some, left())))?
            }
        };
        progress.finish();
        Ok(measured)
    }

    /// How first tokens are treated: as was asked for, or as their size suggests.
    fn first_token(
        &self,
        (pipeline, watch): (&TextToImage<'_, Cpu>, &Watch<'_>),
    ) -> Result<FirstToken> {
        if let Some(first_token) = self.first_token {
            return Ok(first_token);
        }
        let ratio = pipeline.first_token_ratio(&self.request, watch)?;
        if ratio < LARGE {
            return Ok(FirstToken::AsOthers);
        }
        report::say(&format!(
            "the first token of texts is {ratio:.1} times as large as all others: its keys and values stay real"
        ));
        Ok(FirstToken::Float)
    }

    /// The same with as few pictures as leave time for many layers, where there is a limit. Interrupted work goes on with
    /// those that it had.
    fn within_time(
        &self,
        (pipeline, watch): (&TextToImage<'_, Cpu>, &Watch<'_>),
        path: &Path,
    ) -> Result<Self> {
        let Scope::Within(time) = self.scope else { return Ok(self.clone()) };
        let begun = Unfinished::header(&beside(path, OWN));
        let begun = begun.filter(|begun| self.request.prompts.starts_with(&begun.prompts));
        let pictures = if let Some(begun) = begun {
            begun.prompts.len() * begun.pictures
        } else {
            let one = Probe::new(pipeline, &first(&self.request, 1), watch)?;
            // Own errors take about as long.
            let each = time.div_f64(2.0 * LAYERS).as_secs_f64();
            (each / one.pace().as_secs_f64()) as usize
        };
        let request = first(&self.request, pictures);
        if request.total() < self.request.total() {
            let (few, many) = (request.total(), self.request.total());
            report::say(&format!("{few} of {many} pictures fit the time"));
        }
        Ok(Self { request, ..self.clone() })
    }

    fn header(
        &self,
        (model, first_token): (&Model, FirstToken),
        probe: &mut Probe<'_, '_, Cpu>,
    ) -> Result<Header> {
        let (settings, request) = (probe.settings().clone(), &self.request);
        let known = |name: &String| model.components().any(|component| component.name == name);
        if let Some(other) = self.components.iter().find(|name| !known(name)) {
            let names: Vec<&str> = model.components().map(|component| component.name).collect();
            bail!("the model has no component `{other}`; it has {}", names.join(", "));
        }
        let wanted = |name: &str| {
            self.components.is_empty() || self.components.iter().any(|wanted| wanted == name)
        };
        let components = model.components().map(|component| component.name);
        let components = components.filter(|name| wanted(name)).map(|name| {
            let layers = probe.layers().iter().filter(|layer| layer.component == name);
            let reads = model.encoders.iter().any(|encoder| encoder.component.name == name);
            let schemes = if reads { &self.text_formats } else { &self.formats };
            let schemes = schemes.iter().map(ToString::to_string);
            Component {
                name: name.to_owned(),
                formats: std::iter::once(FLOAT.to_owned()).chain(schemes).collect(),
                layers: layers.map(|layer| layer.name.clone()).collect(),
            }
        });
        Ok(Header {
            version: VERSION,
            of: Of::Network,
            model: model.name.clone(),
            fingerprint: model.fingerprint()?,
            calibrated: model.calibrated,
            prompts: request.prompts.clone(),
            pictures: request.pictures,
            seed: request.seed,
            width: settings.width,
            height: settings.height,
            steps: settings.steps,
            guidance: settings.guidance,
            real_first_token: first_token == FirstToken::Float,
            components: components.collect(),
            rounding: probe.rounding()?,
            places: None,
            shard: self.shard,
        })
    }
}

/// How much larger than all others a first token is that is treated apart.
const LARGE: f64 = 2.0;

/// Layers whose effects should be measured before they are measured on more pictures: about as many as have roles of their
/// own.
const LAYERS: f64 = 64.0;

/// About so many pictures of a request, one at least: the first prompts, once or more often.
fn first(request: &Request, pictures: usize) -> Request {
    let prompts = pictures.clamp(1, request.prompts.len());
    Request {
        prompts: request.prompts[..prompts].to_vec(),
        pictures: (pictures / prompts).clamp(1, request.pictures),
        ..request.clone()
    }
}

/// What files of a measurement in part are called beside the whole one's name.
const OWN: &str = "own";
const SOME: &str = "some";

/// One format of each layer, by its effect on the network.
fn one_format(header: &Header) -> Header {
    let components = inference::middle(&header.components);
    Header { of: Of::Network, components, ..header.clone() }
}

/// A file beside another: `scores.own.jsonl`.
fn beside(path: &Path, word: &str) -> PathBuf {
    let ending = path.extension().map_or(word.to_owned(), |e| format!("{word}.{}", e.display()));
    path.with_extension(ending)
}

/// Measuring at work.
struct Run<'a, 'w> {
    probe: Probe<'a, 'w, Cpu>,
    what: &'a What,
    progress: &'a Progress,
}

impl Run<'_, '_> {
    /// Measure all that a header asks for, unless it is there.
    fn file(&mut self, header: Header, path: &Path) -> Result<Sensitivity> {
        if let Some(done) = Sensitivity::read(path).ok().filter(|done| done.header == header) {
            return Ok(done);
        }
        let (mut file, mut found) = Unfinished::open(path, header)?;
        let header = found.header.clone();
        // Drawing, or measuring something else, came before.
        os::return_freed();
        let due = header.entries();
        let left = &due[found.records.len()..];
        self.estimate(&header, left);
        let start = Instant::now();
        for (place, format) in left {
            self.progress.work("measure", found.records.len(), due.len());
            let record = self.record(&header, *place, format)?;
            file.append(&record)?;
            found.records.push(record);
        }
        self.progress.finish();
        if header.of != Of::Output {
            report::say(&format!("measured in {:.1} s", start.elapsed().as_secs_f64()));
        }
        file.finish(path)?;
        Ok(found)
    }

    /// All layers' own errors, what `some` asks for beside them, and all scores from both.
    fn inferred(
        &mut self,
        header: Header,
        path: &Path,
        some: &dyn Fn(&Self, &Sensitivity) -> Header,
    ) -> Result<Sensitivity> {
        let own = self.file(Header { of: Of::Output, ..header }, &beside(path, OWN))?;
        let some = some(self, &own);
        let some = self.file(some, &beside(path, SOME))?;
        agreement("own errors with what was measured", &own, &some);
        let whole = inference::infer(&own, &some);
        output::save(path, whole.to_text().as_bytes())?;
        Ok(whole)
    }

    /// One format of one layer. Real numbers are as far away as their rounding to 16 bits takes them.
    fn record(&mut self, header: &Header, place: usize, format: &str) -> Result<Record> {
        let layer = self.layer(header, place)?;
        if !self.what.prefix_cache && format != FLOAT {
            self.probe.start_anew(&layer)?;
        }
        let numbers = numbers(format)?;
        let effect = match (header.of, format) {
            (Of::Network | Of::Glance, FLOAT) => header.floor(),
            (Of::Network | Of::Glance, _) => {
                self.probe.measure(&layer, numbers, self.look(header, &layer))?
            }
            (Of::Output, _) => Effect { sqnr: self.probe.own_error(&layer, numbers)?, ssim: None },
        };
        let bytes = self.probe.bytes(&layer, numbers) as u64;
        let component = layer.component.to_owned();
        let (layer, weights) = (layer.name, layer.weights as u64);
        let format = format.to_owned();
        Ok(Record { component, layer, place, format, bytes, weights, effect, inferred: false })
    }

    /// What is looked at for a layer.
    fn look(&self, header: &Header, layer: &Layer) -> Look {
        if header.of == Of::Glance { Look::Glance } else { self.what.look.at(layer) }
    }

    /// The layer of a place.
    fn layer(&self, header: &Header, place: usize) -> Result<Layer> {
        let named = header.layer(place).and_then(|(of, name)| {
            let mut layers = self.probe.layers().iter();
            layers.find(|layer| layer.component == of.name && layer.name == name)
        });
        named.cloned().with_context(|| format!("the model has no layer at place {place}"))
    }

    /// As many layers as there is time for, in one format each. Interrupted work goes on with those that it had chosen.
    fn selection(&self, own: &Sensitivity, (path, time): (&Path, Duration)) -> Header {
        let order = inference::most_telling(own);
        let alone = one_format(&own.header);
        let chosen = Unfinished::chosen(path, &alone).unwrap_or_else(|| {
            let mut left = time;
            let affordable = |place: &usize| {
                let Ok(layer) = self.layer(&alone, *place) else { return false };
                let cost = self.probe.estimate(&layer, self.what.look.at(&layer));
                let affordable = cost <= left;
                left = left.saturating_sub(cost);
                affordable
            };
            let mut chosen: Vec<usize> = order.into_iter().take_while(affordable).collect();
            chosen.sort_unstable();
            chosen
        });
        report::say(&format!("{} of {} layers fit the time", chosen.len(), own.header.count()));
        Header { places: Some(chosen), ..alone }
    }

    /// Say how long it will take.
    fn estimate(&self, header: &Header, due: &[(usize, &str)]) {
        if header.of == Of::Output {
            return;
        }
        let due: Vec<usize> =
            due.iter().filter(|(_, format)| *format != FLOAT).map(|(place, _)| *place).collect();
        let times = due.iter().filter_map(|place| {
            let layer = self.layer(header, *place).ok()?;
            Some(self.probe.estimate(&layer, self.look(header, &layer)))
        });
        report::say(&format!(
            "{} layers, {} formats of them, {} pictures: about {}",
            header.places().count(),
            due.len(),
            self.what.request.total(),
            HumanDuration(times.sum())
        ));
    }
}

/// What a format's numbers are.
fn numbers(format: &str) -> Result<LayerFormat> {
    match format {
        FLOAT => Ok(LayerFormat::Float(Precision::Bf16)),
        other => other.parse().map_err(anyhow::Error::msg),
    }
}

impl PicturesOf {
    fn at(self, layer: &Layer) -> Look {
        let group = Group::of_component(layer.component, &layer.name);
        if self == Self::All || group == Group::Content { Look::Picture } else { Look::Prediction }
    }
}

/// Say how well the order of scores is that of others.
fn agreement(what: &str, scores: &Sensitivity, measured: &Sensitivity) {
    for (group, agreement) in inference::agreement(scores, measured) {
        report::say(&format!("rank correlation of {what}, {group}: {agreement:.2}"));
    }
}
