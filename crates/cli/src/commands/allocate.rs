//! Scores and costs of layers → the bits of each.

mod sweep;

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Result, ensure};
use quant::allocation::{Measured, Share};
use quant::budget::sensible;
use quant::table::{Costs, Scores, bits_to_yaml};
use quant::{Allocation, Budget, Group, Kind, Problem};
use serde::Serialize;

use crate::args::{Allocate, KindArg};
use crate::output::Target;
use crate::report::{self, Unmet};

/// Choose, and say what was chosen.
pub(crate) fn run(args: &Allocate) -> Result<()> {
    let yaml = args.output.as_deref().map(Target::new);
    let json = args.json.as_deref().map(Target::new);
    let stdout = [&yaml, &json].map(|target| *target == Some(Target::Stdout));
    ensure!(
        stdout != [true, true],
        "-o and --json cannot both be `-`; name a file for one of them"
    );
    for target in [&yaml, &json].into_iter().flatten() {
        target.check()?;
    }
    let problem = problem(args)?;
    if let Some(folder) = &args.sweep {
        return sweep::run(&problem, kind(args), args.average_bits, folder);
    }
    // Without a sweep, the command line is not read without a ratio.
    let budget = Budget { average: args.average_bits, ratio: args.ratio.unwrap_or(1.0) };
    let allocation = problem.allocate(budget)?;
    let unmet = unmet(&allocation);
    if let Some(json) = &json {
        json.write_text(&document(&problem, &allocation)?)?;
    }
    if let Some(unmet) = unmet {
        return Err(Unmet(unmet).into());
    }
    if let Some(yaml) = &yaml {
        yaml.write_text(&bits_to_yaml(&allocation.bits))?;
    }
    if stdout == [false, false] {
        report::print(&table(&problem, &allocation, kind(args))?);
    }
    Ok(())
}

fn kind(args: &Allocate) -> Kind {
    match args.kind {
        KindArg::Weight => Kind::Weight,
        KindArg::Act => Kind::Act,
    }
}

fn problem(args: &Allocate) -> Result<Problem> {
    let (content, quality) =
        (Scores::read(&args.content_scores)?, Scores::read(&args.quality_scores)?);
    let costs = Costs::read(&args.costs)?;
    let measured = Measured { content: &content, quality: &quality, costs: &costs };
    Ok(Problem::new(kind(args), measured, args.protect)?)
}

fn shares(allocation: &Allocation) -> [(Group, Share); 2] {
    Group::ALL.map(|group| (group, allocation.share(group)))
}

/// Which group has no solution, as one line.
fn unmet(allocation: &Allocation) -> Option<String> {
    let without = shares(allocation).into_iter().filter(|(_, share)| share.best.is_none());
    let without = without.map(|(group, share)| {
        let range = sensible(group);
        let (least, most) = (range.start(), range.end());
        format!("{group} layers at {:.4} bits ({least} to {most} are allowed)", share.target)
    });
    let without: Vec<String> = without.collect();
    (!without.is_empty()).then(|| {
        format!(
            "no choice of bits leaves {} on average; choose other --average-bits or another --ratio",
            without.join(" and ")
        )
    })
}

/// What `--json` writes.
#[derive(Serialize)]
struct Document<'a> {
    groups: Groups,
    protected: &'a [String],
    bits: &'a BTreeMap<String, u8>,
}

#[derive(Serialize)]
struct Groups {
    content: GroupDocument,
    quality: GroupDocument,
}

#[derive(Serialize)]
struct GroupDocument {
    status: &'static str,
    target: f64,
    average: Option<f64>,
    objective: Option<f64>,
}

impl From<Share> for GroupDocument {
    fn from(share: Share) -> Self {
        Self {
            status: if share.best.is_some() { "optimal" } else { "infeasible" },
            target: share.target,
            average: share.best.and_then(|best| best.average),
            objective: share.best.map(|best| best.objective),
        }
    }
}

fn document(problem: &Problem, allocation: &Allocation) -> Result<String> {
    let document = Document {
        groups: Groups { content: allocation.content.into(), quality: allocation.quality.into() },
        protected: problem.protected(),
        bits: &allocation.bits,
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// One line for each group, one for each protected layer.
fn table(problem: &Problem, allocation: &Allocation, kind: Kind) -> Result<String> {
    let mut out = String::new();
    writeln!(
        out,
        "{:<8}{:>8}{:>8}{:>8}{:>8}{:>10}{:>10}{:>20}",
        "group", "layers", "2 bits", "4 bits", "8 bits", "target", "average", "sum of scores"
    )?;
    for (group, share) in shares(allocation) {
        let own = allocation.bits.iter().filter(|(layer, _)| Group::of(layer) == group);
        let count = |wanted: u8| {
            if !kind.bits(group).contains(&wanted) {
                return "-".to_owned();
            }
            own.clone().filter(|(_, bits)| **bits == wanted).count().to_string()
        };
        let Some(best) = share.best else { continue };
        let average = best.average.map_or("-".to_owned(), |average| format!("{average:.4}"));
        writeln!(
            out,
            "{:<8}{:>8}{:>8}{:>8}{:>8}{:>10.4}{average:>10}{:>20.6}",
            group.name(),
            own.clone().count(),
            count(2),
            count(4),
            count(8),
            share.target,
            best.objective
        )?;
    }
    for layer in problem.protected() {
        writeln!(out, "protected {layer}")?;
    }
    Ok(out)
}
