//! A quantized model's pictures beside those of the original.

mod contender;

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use pipeline::concepts::Scorer;
use pipeline::similarity::Judge;
use pipeline::{Model, Plan, Request, TextToImage};
use quant::calibration::Calibration;
use serde::Serialize;
use tensor::{Cpu, Halves, Precision, Scheme};

use contender::Prompts;
pub(crate) use contender::{Contender, LayerBits, Likeness};

use super::{calibrate, drawing, engine};
use crate::args::{self, Beside, Requirement, Score, Source};
use crate::output::{self, Target};
use crate::page::{self, Page};
use crate::report::{self, Unmet};

/// Set by Ctrl-C; looked at before every operation.
static CANCEL: AtomicBool = AtomicBool::new(false);

/// Compare what was named.
pub(crate) fn run(args: &args::Evaluate) -> Result<()> {
    let [json, html] = [&args.json, &args.html].map(|path| path.as_deref().map(Target::new));
    for target in [&json, &html].into_iter().flatten() {
        target.check()?;
    }
    ctrlc::set_handler(|| CANCEL.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")?;
    // What comes with a packed model is in it already, and belongs to the original alone.
    let alone = Source { model: args.source.model.clone(), ..Source::default() };
    let model = match engine::model(&alone)? {
        packed if packed.packed.is_some() => packed,
        _ => engine::model(&args.source)?,
    };
    let source = Source { model: Some(args.reference.clone()), ..args.source.clone() };
    let reference = engine::model(&source)?;
    let cpu = engine::cpu(args.threads)?;
    let request = drawing::pictures(&args.pictures, args.skip as usize)?;
    let models = Models {
        reference: &reference,
        model: &model,
        beside: &args.beside,
        everywhere: &args.everywhere,
        precision: engine::precision(args.precision, &cpu),
    };
    let ranges = args.ranges.as_deref();
    let ranges = ranges.map(|path| calibrate::of_model(path, &reference)).transpose()?;
    let mut judge = args.clip.as_deref().map(|clip| Judge::open(&cpu, clip)).transpose()?;
    let mut scorer = args.scorer.as_deref().map(|path| Scorer::open(&cpu, path)).transpose()?;
    if let Some(scorer) = &scorer {
        let plan = Plan::float(Precision::F32);
        let settings = TextToImage::new(&cpu, &model, &plan).settings(&request)?;
        scorer.check([settings.width, settings.height], &request.prompts)?;
    }
    let mut findings = models.compare(&request, (&cpu, &CANCEL))?;
    if let Some(judge) = &mut judge {
        let prompts = Prompts::read(judge, &request.prompts)?;
        for contender in &mut findings.contenders {
            contender.judge(judge, &prompts)?;
        }
    }
    if let Some(scorer) = &mut scorer {
        for contender in &mut findings.contenders {
            contender.recognize(scorer, &request)?;
        }
    }
    if let Some(json) = &json {
        json.write_text(&(serde_json::to_string_pretty(&findings)? + "\n"))?;
    }
    if let Some(html) = &html {
        let work = args.work.as_deref().map(page::Work::read).transpose()?;
        let (work, ranges) = (work.as_ref(), ranges.as_ref());
        html.write_text(&Page { findings: &findings, work, ranges }.html()?)?;
    }
    if json != Some(Target::Stdout) {
        report::print(&findings.table()?);
    }
    let unmet = args.require.iter().filter_map(|requirement| findings.unmet(*requirement));
    let unmet: Vec<String> = unmet.collect();
    if unmet.is_empty() { Ok(()) } else { Err(Unmet(unmet.join("; ")).into()) }
}

/// What is compared.
pub(crate) struct Models<'a> {
    /// Draws with real numbers.
    pub(crate) reference: &'a Model,
    /// What is judged.
    pub(crate) model: &'a Model,
    /// What else the reference is drawn with.
    pub(crate) beside: &'a [Beside],
    /// Schemes for every layer of all its components.
    pub(crate) everywhere: &'a [Scheme],
    /// In which all but the reference compute what is real in them.
    pub(crate) precision: Precision,
}

/// The formats that a model was packed in.
fn own_plan(model: &Model) -> Plan {
    model.packed.as_ref().map_or_else(Plan::default, |packed| packed.plan.clone())
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    pub(crate) version: u32,
    pub(crate) model: String,
    pub(crate) reference: String,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) steps: usize,
    pub(crate) guidance: f32,
    pub(crate) prompts: Vec<String>,
    pub(crate) seed: u64,
    /// The reference, then uniform schemes, then the model that is judged.
    pub(crate) contenders: Vec<Contender>,
}

impl Models<'_> {
    /// Draw with all of them.
    pub(crate) fn compare(
        &self,
        request: &Request,
        (cpu, cancel): (&Cpu, &AtomicBool),
    ) -> Result<Findings> {
        let Self { reference, model, beside, everywhere, precision } = *self;
        let exact = Plan::float(Precision::F32);
        // All draw what the judged model draws by default.
        let settings = TextToImage::new(cpu, model, &exact).settings(request)?;
        let request = &settings.fixed(request);
        let draw = |name: &str, model: &Model, plan: &Plan| {
            Contender::draw(name, (model, plan), request, (cpu, cancel))
        };
        let mut contenders = vec![draw("f32", reference, &exact)?];
        for other in beside {
            contenders.push(match other {
                Beside::Scheme(scheme) => {
                    let plan = engine::uniform_unet(*scheme, Halves::Apart, precision);
                    draw(&format!("uniform {scheme}"), reference, &plan)?
                }
                Beside::Plan(path) => {
                    let plan = engine::plan_of(path, reference)?.with_precision(precision);
                    draw(&path.with_extension("").display().to_string(), reference, &plan)?
                }
                Beside::Packed(path) => {
                    let source = Source { model: Some(path.clone()), ..Source::default() };
                    let other = engine::model(&source)?;
                    draw(&other.name, &other, &own_plan(&other).with_precision(precision))?
                }
            });
        }
        for scheme in everywhere {
            let plan = Plan::uniform(*scheme, precision);
            contenders.push(draw(&format!("{scheme} everywhere"), reference, &plan)?);
        }
        let name = model.name.clone();
        contenders.push(draw(&name, model, &own_plan(model).with_precision(precision))?);
        let (first, others) = contenders.split_at_mut(1);
        for other in others {
            other.compare(&first[0], request)?;
        }
        Ok(Findings {
            version: 1,
            model: name,
            reference: reference.name.clone(),
            width: settings.width,
            height: settings.height,
            steps: settings.steps,
            guidance: settings.guidance,
            prompts: request.prompts.clone(),
            seed: request.seed,
            contenders,
        })
    }
}

impl Findings {
    /// The model that is judged.
    pub(crate) fn judged(&self) -> &Contender {
        &self.contenders[self.contenders.len() - 1]
    }

    /// One line for each contender.
    fn table(&self) -> Result<String> {
        let mut out = String::new();
        let (name, ssim, worst, psnr) = ("model", "SSIM", "worst", "PSNR");
        let (fit, precision, concepts) = ("CLIP", "R-prec.", "concepts");
        let (sqnr, mb, peak, seconds) = ("latents", "file MB", "peak MB", "s/picture");
        writeln!(
            out,
            "{name:<28}{ssim:>8}{worst:>8}{psnr:>8}{sqnr:>9}{fit:>8}{precision:>9}{concepts:>10}{mb:>10}{peak:>9}{seconds:>11}"
        )?;
        for contender in &self.contenders {
            let Contender { name, bytes, planned_peak, seconds, .. } = contender;
            let [mb, peak] = [*bytes as f64 / 1e6, *planned_peak as f64 / 1e6];
            let scores = contender.mean.zip(contender.worst).map_or_else(
                || format!("{:>8}{:>8}{:>8}{:>9}", "-", "-", "-", "-"),
                |(mean, worst)| {
                    let Likeness { ssim, psnr, sqnr } = mean;
                    format!("{ssim:>8.4}{:>8.4}{psnr:>8.2}{sqnr:>9.2}", worst.ssim)
                },
            );
            let fit = contender.fit.map_or("-".to_owned(), |fit| format!("{fit:.2}"));
            let share = |share: Option<f64>| share.map_or("-".to_owned(), |s| format!("{s:.3}"));
            let (precision, concepts) = (share(contender.r_precision), share(contender.concepts));
            let name = short(name);
            writeln!(
                out,
                "{name:<28}{scores}{fit:>8}{precision:>9}{concepts:>10}{mb:>10.1}{peak:>9.1}{seconds:>11.3}"
            )?;
        }
        Ok(out)
    }

    /// What the judged model's mean lacks.
    fn unmet(&self, Requirement { score, least }: Requirement) -> Option<String> {
        let mean = self.judged().mean?;
        let (name, found) = match score {
            Score::Ssim => ("ssim", mean.ssim),
            Score::Psnr => ("psnr", mean.psnr),
            Score::Sqnr => ("sqnr", mean.sqnr),
        };
        (found < least).then(|| format!("{name} is {found:.4} on average, and {least} is required"))
    }
}

/// The end of a name that would not fit in its column.
fn short(name: &str) -> String {
    let count = name.chars().count();
    if count < 28 {
        name.to_owned()
    } else {
        format!("…{}", name.chars().skip(count - 26).collect::<String>())
    }
}

/// Write the report of a model that was just made.
pub(crate) fn write_report(
    models: &Models<'_>,
    (request, ranges): (&Request, &Calibration),
    (folder, cpu, cancel): (&std::path::Path, &Cpu, &AtomicBool),
) -> Result<()> {
    let findings = models.compare(request, (cpu, cancel))?;
    let work = page::Work::read(folder)?;
    let html = Page { findings: &findings, work: Some(&work), ranges: Some(ranges) }.html()?;
    output::save(&folder.join("report.html"), html.as_bytes())?;
    output::save(&folder.join("report.json"), serde_json::to_string_pretty(&findings)?.as_bytes())?;
    report::print(&findings.table()?);
    Ok(())
}
