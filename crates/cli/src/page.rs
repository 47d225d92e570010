//! The report: one page that needs nothing else.

mod chart;
mod picture;
mod ranges;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use quant::Group;
use quant::calibration::Calibration;
use quant::formats::Objective;
use quant::sensitivity::{FLOAT, Sensitivity};

use crate::commands::evaluate::{Contender, Findings, LayerBits, Likeness};
use crate::commands::quantize::compare::Comparison;
use crate::commands::quantize::search::{CANDIDATES, SCORES};
use chart::{Chart, Span};

const HEAD: &str = include_str!("page/head.html");

/// Rows of pictures that are shown.
const ROWS: usize = 12;

/// What its figures mean, where a CLIP has judged.
const CLIP: &str = "CLIP is the mean cosine of a picture and its prompt, times 100; R-precision is the share of pictures that are nearer \
     to their own prompt than to every other one here; both are the judgement of the CLIP that was given. ";

/// What the scorer's figure means, where one has judged.
const CONCEPTS: &str = "Concepts is the share of pictures in which the scorer that was given finds all objects that \
     the prompt names. ";

/// Colours of the groups.
const CONTENT: &str = "#2563eb";
const QUALITY: &str = "#d97706";
/// Of components beside the UNet.
const READING: &str = "#7c3aed";
const DECODING: &str = "#65a30d";
/// Of the model that is judged, and of those beside it.
const JUDGED: &str = "#0f766e";
const BESIDE: &str = "#9ca3af";

/// What goes on the page.
pub(crate) struct Page<'a> {
    pub(crate) findings: &'a Findings,
    /// How the model's formats were chosen, where that is known.
    pub(crate) work: Option<&'a Work>,
    /// What its layers read, where that was looked at.
    pub(crate) ranges: Option<&'a Calibration>,
}

/// What `quantize --target` keeps.
pub(crate) struct Work {
    measured: Sensitivity,
    comparison: Comparison,
}

impl Work {
    /// Read a work folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CANDIDATES);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}; name the folder that `quantize --target` made", path.display())
        })?;
        let comparison = serde_json::from_str(&text)
            .with_context(|| format!("{} is not one of `quantize --target`", path.display()))?;
        Ok(Self { measured: Sensitivity::read(&folder.join(SCORES))?, comparison })
    }
}

impl Page<'_> {
    /// The whole page.
    pub(crate) fn html(&self) -> Result<String> {
        let findings = self.findings;
        let mut out = String::new();
        let title = format!("{} beside {}", escaped(&findings.model), escaped(&findings.reference));
        out.push_str(&HEAD.replace("{title}", &title));
        writeln!(
            out,
            "<h1>{}</h1>\n<p class=\"verdict\">{}</p>",
            escaped(&findings.model),
            verdict(findings)
        )?;
        self.tiles(&mut out)?;
        self.table(&mut out)?;
        self.pictures(&mut out)?;
        out.push_str("<h2>Likeness of each picture</h2>\n");
        out.push_str(&self.likeness());
        out.push_str("<h2>Bits along the network</h2>\n");
        out.push_str(&self.bits());
        if let Some(work) = self.work {
            out.push_str("<h2>Sensitivity of each layer alone</h2>\n");
            out.push_str(&sensitivity(work));
            out.push_str("<h2>Plans that were compared, and what they were chosen by</h2>\n");
            out.push_str(&plans(work));
        }
        if let Some(found) = self.ranges {
            out.push_str("<h2>What each layer reads</h2>\n");
            out.push_str(&ranges::chart(found));
        }
        self.notes(&mut out)?;
        out.push_str("</main>\n</html>\n");
        Ok(out)
    }

    fn tiles(&self, out: &mut String) -> Result<()> {
        let [first, judged] = [&self.findings.contenders[0], self.findings.judged()];
        let Some(mean) = judged.mean else { return Ok(()) };
        let ratio = |a: f64, b: f64| format!("{:.1}×", a / b.max(1.0));
        out.push_str("<section class=\"tiles\">\n");
        for (value, label) in [
            (format!("{:.3}", mean.ssim), "structural similarity"),
            (format!("{:.1} dB", mean.psnr), "peak signal-to-noise"),
            (ratio(first.bytes as f64, judged.bytes as f64), "smaller file"),
            (ratio(first.planned_peak as f64, judged.planned_peak as f64), "less memory than f32"),
        ] {
            writeln!(out, "<div><strong>{value}</strong><span>{label}</span></div>")?;
        }
        out.push_str("</section>\n");
        Ok(())
    }

    fn table(&self, out: &mut String) -> Result<()> {
        out.push_str(
            "<div class=\"wide\"><table>\n<tr><th>model<th>SSIM<th>worst<th>PSNR, dB<th>latents, dB\
             <th>CLIP<th>R-precision<th>concepts<th>file, MB<th>planned memory, MB<th>s / picture</tr>\n",
        );
        for contender in &self.findings.contenders {
            let Contender { name, mean, worst, bytes, planned_peak, seconds, .. } = contender;
            let score = |all: &Option<Likeness>, of: fn(&Likeness) -> f64, digits: usize| {
                all.as_ref().map_or("–".to_owned(), |all| format!("{:.digits$}", of(all)))
            };
            let share = |share: Option<f64>| share.map_or("–".to_owned(), |s| format!("{s:.3}"));
            writeln!(
                out,
                "<tr><th>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{:.1}<td>{:.1}<td>{seconds:.2}</tr>",
                escaped(name),
                score(mean, |l| l.ssim, 4),
                score(worst, |l| l.ssim, 4),
                score(mean, |l| l.psnr, 2),
                score(mean, |l| l.sqnr, 2),
                contender.fit.map_or("–".to_owned(), |fit| format!("{fit:.2}")),
                share(contender.r_precision),
                share(contender.concepts),
                *bytes as f64 / 1e6,
                *planned_peak as f64 / 1e6,
            )?;
        }
        out.push_str("</table></div>\n");
        Ok(())
    }

    fn pictures(&self, out: &mut String) -> Result<()> {
        out.push_str("<h2>Pictures</h2>\n<div class=\"pictures\">\n");
        let judged = self.findings.judged();
        let step = judged.pictures.len().div_ceil(ROWS).max(1);
        for (i, scored) in judged.pictures.iter().enumerate().step_by(step) {
            let prompt = escaped(&scored.prompt);
            writeln!(
                out,
                "<section><h3>{prompt} <small>seed {}</small></h3>\n<div class=\"row\">",
                scored.seed
            )?;
            for contender in &self.findings.contenders {
                let name = escaped(&contender.name);
                let likeness =
                    contender.pictures.get(i).map(|p| format!(" · {:.3}", p.likeness.ssim));
                writeln!(
                    out,
                    "<figure><img alt=\"{prompt}, {name}\" src=\"{}\"><figcaption>{name}{}</figcaption></figure>",
                    picture::data_url(&contender.drawn[i])?,
                    likeness.unwrap_or_default()
                )?;
            }
            out.push_str("</div></section>\n");
        }
        out.push_str("</div>\n");
        Ok(())
    }

    /// The similarity of each picture, those of the judged model in their order.
    fn likeness(&self) -> String {
        let judged = self.findings.judged();
        let all = self.findings.contenders.iter().flat_map(|c| &c.pictures);
        let least = all.map(|p| p.likeness.ssim).fold(1.0, f64::min);
        let mut order: Vec<usize> = (0..judged.pictures.len()).collect();
        let ssim = |contender: &Contender, i: usize| contender.pictures[i].likeness.ssim;
        order.sort_by(|&a, &b| ssim(judged, a).total_cmp(&ssim(judged, b)));
        let mut chart = Chart::new(
            ("pictures, the least alike first", Span::of([0.0, order.len() as f64 + 1.0])),
            ("SSIM", Span::of([least, 1.0])),
        );
        for contender in &self.findings.contenders[1..] {
            let is_judged = std::ptr::eq(contender, judged);
            let colour = if is_judged { JUDGED } else { BESIDE };
            for (x, &i) in order.iter().enumerate() {
                let title = format!("{}: {}", contender.name, contender.pictures[i].prompt);
                chart.dot([x as f64 + 1.0, ssim(contender, i)], colour, &title);
            }
            chart.key(colour, &contender.name);
        }
        chart.svg()
    }

    /// What a weight of each layer takes.
    fn bits(&self) -> String {
        let bits = &self.findings.judged().bits;
        let kinds = bits.iter().map(|layer| kind(layer.component, &layer.layer));
        let most = bits.iter().map(|layer| layer.bits).fold(8.0, f64::max);
        let mut chart = Chart::new(
            ("layers, as they run", Span::of([0.0, bits.len() as f64])),
            ("bits of a weight, units included", Span::of([0.0, most])),
        );
        for (x, (layer, (_, colour))) in bits.iter().zip(kinds.clone()).enumerate() {
            let LayerBits { component, layer, format, bits } = layer;
            let title = format!("{component}, {layer}: {format}, {bits:.2} bits");
            chart.bar(x as f64, *bits, colour, &title);
        }
        for (name, colour) in kinds.collect::<BTreeSet<_>>() {
            chart.key(colour, name);
        }
        chart.svg()
    }

    fn notes(&self, out: &mut String) -> Result<()> {
        let Findings { prompts, seed, width, height, steps, guidance, contenders, .. } =
            self.findings;
        let pictures = contenders[0].drawn.len();
        writeln!(
            out,
            "<footer><p>{pictures} pictures of {} prompts, seeds from {seed}, {width}×{height}, {steps} \
             {}, guidance {guidance}. Similarity is structural similarity with an 11×11 Gaussian window \
             against the original's pictures in single precision; latents are compared before the decoder. \
             {}{}Times depend on the machine.</p></footer>",
            prompts.len(),
            if *steps == 1 { "step" } else { "steps" },
            if contenders[0].fit.is_some() { CLIP } else { "" },
            if contenders[0].concepts.is_some() { CONCEPTS } else { "" }
        )?;
        Ok(())
    }
}

/// Each layer's scores with each format, by the score of its group.
fn sensitivity(work: &Work) -> String {
    let mut out = String::new();
    for group in Group::ALL {
        let layers: Vec<_> = work.measured.layers().filter(|(of, _)| *of == group).collect();
        let noise = |record: &quant::sensitivity::Record| match (group, record.effect.ssim) {
            (Group::Content, Some(ssim)) => (1.0 - ssim).max(1e-9).log10(),
            _ => -record.effect.sqnr,
        };
        let measured = || {
            let records = layers.iter().flat_map(|(_, records)| records.iter());
            records.filter(|record| record.format != FLOAT)
        };
        let label = match group {
            Group::Content => "log₁₀ (1 − SSIM)",
            Group::Quality => "noise of the prediction, dB",
        };
        let mut chart = Chart::new(
            (group.name(), Span::of([0.0, layers.len() as f64])),
            (label, Span::of(measured().map(noise))),
        );
        let shades = ["#1e3a8a", "#2563eb", "#60a5fa", "#93c5fd", "#bfdbfe", "#dbeafe"];
        let formats: BTreeSet<&str> = measured().map(|record| record.format.as_str()).collect();
        for (format, shade) in formats.into_iter().rev().zip(shades) {
            for (x, (_, records)) in layers.iter().enumerate() {
                for record in records.iter().filter(|record| record.format == *format) {
                    let title = format!("{}, {} as {format}", record.component, record.layer);
                    chart.dot([x as f64 + 0.5, noise(record)], shade, &title);
                }
            }
            chart.key(shade, format);
        }
        out.push_str(&chart.svg());
    }
    out
}

/// What became of held-out pictures with each plan.
fn plans(work: &Work) -> String {
    let plans = &work.comparison.plans;
    let mut chart = Chart::new(
        (
            "bits of content layers over those of others, log₂",
            Span::of(plans.iter().map(|p| p.ratio.log2())),
        ),
        ("prediction, dB", Span::of(plans.iter().map(|p| p.effect.sqnr))),
    );
    let colours = [JUDGED, BESIDE, CONTENT, QUALITY];
    let objectives = Objective::APART.into_iter().chain(Objective::TOGETHER);
    for (objective, colour) in objectives.map(Objective::name).zip(colours) {
        for plan in plans.iter().filter(|plan| plan.objective == objective) {
            let title = format!(
                "ratio {:.2}, {:.1} MB, SSIM {:.4}",
                plan.ratio,
                plan.bytes as f64 / 1e6,
                plan.effect.ssim.unwrap_or_default()
            );
            chart.dot([plan.ratio.log2(), plan.effect.sqnr], colour, &title);
        }
        chart.key(colour, &format!("by {objective}"));
    }
    chart.svg()
}

/// One sentence.
fn verdict(findings: &Findings) -> String {
    let [first, judged] = [&findings.contenders[0], findings.judged()];
    let Some(Likeness { ssim, .. }) = judged.mean else { return String::new() };
    let draws = match ssim {
        0.95.. => "Draws as the original does",
        0.85.. => "Draws nearly as the original does",
        0.7.. => "Draws what the original does, with differences that show",
        _ => "Does not draw what the original does",
    };
    let smaller = first.bytes as f64 / judged.bytes.max(1) as f64;
    let beside = findings.contenders[1..findings.contenders.len() - 1].iter();
    let beside = beside.filter_map(|c| Some((c, c.mean?.ssim)));
    let beside: Vec<String> =
        beside.map(|(c, other)| format!("; {} has {other:.3}", escaped(&c.name))).collect();
    let beside = beside.concat();
    format!(
        "{draws}, in a file {smaller:.1} times smaller than with 16 bits: similarity {ssim:.3}{beside}."
    )
}

/// What a layer is shown as, and its colour.
fn kind(component: &str, layer: &str) -> (&'static str, &'static str) {
    match (component, Group::of_component(component, layer)) {
        ("vae", _) => ("decoder", DECODING),
        ("unet", group @ Group::Content) => (group.name(), CONTENT),
        ("unet", group @ Group::Quality) => (group.name(), QUALITY),
        _ => ("text encoders", READING),
    }
}

/// Text as HTML has it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
