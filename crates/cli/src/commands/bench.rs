//! Time one component on given inputs, alone or interleaved with another program.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tensor::file::Checkpoint;
use tensor::{Control, Cpu, CpuWeights, Device, Session};

use super::engine;
use crate::args::{Bench, BenchComponent};
use crate::{output, report};

/// Run the component as often as asked for.
pub(crate) fn run(args: &Bench) -> Result<()> {
    let model = engine::model(&args.engine.source)?;
    let cpu = engine::cpu(args.engine.threads)?;
    let plan = engine::plan(&args.engine, &model, &cpu)?;
    let inputs = Checkpoint::open(&args.inputs)?;
    let recording = match args.component {
        BenchComponent::Unet => pipeline::bench::unet(&model, &inputs)?,
        BenchComponent::Vae => pipeline::bench::vae(&model, &inputs)?,
    };
    let component = match args.component {
        BenchComponent::Unet => &model.unet,
        BenchComponent::Vae => &model.vae,
    };
    let plan = plan.component(component.name);
    let session = Session::new(&cpu, &recording.recording, &plan)?;
    let mut weights = CpuWeights::default();
    cpu.prepare(&mut weights, session.program(), &Control::default())?;
    let mut timed = Timed { cpu: &cpu, session, weights };
    for (name, numbers) in &recording.inputs {
        timed.session.write(name, numbers)?;
    }
    if args.serve {
        timed.serve()?;
    } else {
        timed.repeat(args.runs)?;
    }
    if args.verbose {
        timed.kinds()?;
    }
    if let Some(path) = &args.save {
        let (numbers, shape) = pipeline::bench::output(&timed.session)?;
        save(path, &shape, &numbers)?;
    }
    Ok(())
}

struct Timed<'a> {
    cpu: &'a Cpu,
    session: Session<'a, Cpu>,
    weights: CpuWeights,
}

impl Timed<'_> {
    fn once(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.session.run(&self.weights, &Control::default())?;
        Ok(start.elapsed())
    }

    /// One run for each line on standard input.
    fn serve(&mut self) -> Result<()> {
        for line in std::io::stdin().lock().lines() {
            line.context("cannot read from standard input")?;
            let time = self.once()?;
            report::print(&format!("{:.6}\n", time.as_secs_f64()));
            std::io::stdout().flush()?;
        }
        Ok(())
    }

    fn repeat(&mut self, runs: u32) -> Result<()> {
        self.once()?;
        for _ in 0..runs {
            let time = self.once()?.as_secs_f64();
            let rate = self.session.program().multiply_adds() as f64 / time / 1e9;
            report::print(&format!("{time:.3} s  {rate:.1} GMAC/s\n"));
        }
        Ok(())
    }

    /// The time of each kind of operation, slowest first.
    fn kinds(&mut self) -> Result<()> {
        let mut kinds: BTreeMap<String, (Duration, u64, usize)> = BTreeMap::new();
        for step in &self.session.program().steps {
            let kind = kinds.entry(step.op.label()).or_default();
            kind.1 += step.op.multiply_adds();
            kind.2 += 1;
        }
        let mut last = Instant::now();
        self.session.observe(&self.weights, &Control::default(), &mut |step| {
            let now = Instant::now();
            kinds.entry(step.op.label()).or_default().0 += now - last;
            last = now;
        })?;
        let mut rows: Vec<_> = kinds.into_iter().collect();
        rows.sort_by_key(|(_, (time, ..))| std::cmp::Reverse(*time));
        for (kind, (time, work, count)) in rows {
            let seconds = time.as_secs_f64();
            report::print(&format!(
                "{seconds:>8.4} s {:>8.1} GMAC/s  {count:>3} x {kind}\n",
                work as f64 / seconds / 1e9
            ));
        }
        report::print(&format!("level {}\n", self.cpu.level().name()));
        Ok(())
    }
}

fn save(path: &std::path::Path, shape: &[usize], numbers: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = bytemuck::cast_slice(numbers).to_vec();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &bytes)?;
    output::save(path, &safetensors::serialize([("output", view)], None)?)
}
