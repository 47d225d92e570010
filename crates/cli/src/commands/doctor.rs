//! What this machine can do and which kernels will run.

use std::fmt::Write;

use anyhow::Result;

use super::engine;
use crate::{knobs, report};

/// Print it.
pub(crate) fn run() -> Result<()> {
    let cpu = engine::cpu(None)?;
    let mut out = String::new();
    let levels = kernels::isa::Level::available();
    let names: Vec<&str> = levels.iter().map(|level| level.name()).collect();
    let bf16 = if cpu.has_fast_bf16() {
        "multiplied in pairs"
    } else {
        "stored in two bytes, multiplied as f32"
    };
    writeln!(out, "mixdq        {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "cores        {}", engine::cores())?;
    writeln!(out, "instructions {} (of {})", cpu.level().name(), names.join(", "))?;
    writeln!(out, "f32          {} fused multiply-add", cpu.level().name())?;
    writeln!(out, "bf16         {bf16}")?;
    writeln!(out, "integers     {}", cpu.level().int8())?;
    writeln!(out, "precision    auto is {}", engine::faster(&cpu))?;
    let memory = os::available_memory()
        .map_or_else(|| "unknown".into(), |bytes| format!("{:.1} GB free", bytes as f64 / 1e9));
    writeln!(out, "memory       {memory}")?;
    writeln!(out, "gpu          not in this version")?;
    for knob in knobs::ALL {
        writeln!(out, "{:<12} {}", knob.name, knob.help)?;
    }
    report::print(&out);
    Ok(())
}
