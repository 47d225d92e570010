//! What was typed → a device, a model, a plan.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kernels::isa::Level;
use pipeline::model::{Extras, Model};
use pipeline::{Known, Plan};
use tensor::scheme::{ActivationScheme, Granularity, WeightBits, WeightScheme};
use tensor::{Cpu, Halves, Precision, Scheme};

use crate::args::{Engine, PrecisionArg, Source};
use crate::knobs;

/// Name of the bundled model's folder.
const BUNDLED: &str = "pocket-turbo";

/// Cores of this machine that the process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The CPU with this many threads, or one for each core.
pub(crate) fn cpu(threads: Option<u16>) -> Result<Cpu> {
    let level = match knobs::isa() {
        Some(name) => {
            let level: Level = name.parse().map_err(|e| anyhow::anyhow!("MIXDQ_ISA: {e}"))?;
            let here = Level::available().contains(&level);
            ensure!(here, "MIXDQ_ISA: this CPU has no {name}; `mixdq doctor` lists what it has");
            level
        }
        None => Level::detect(),
    };
    Ok(Cpu::new(threads.map_or_else(cores, usize::from), level))
}

/// The precision that is faster on this machine.
pub(crate) fn faster(cpu: &Cpu) -> Precision {
    if cpu.has_fast_bf16() { Precision::Bf16 } else { Precision::F32 }
}

/// The precision that was typed.
pub(crate) fn precision(typed: PrecisionArg, cpu: &Cpu) -> Precision {
    match typed {
        PrecisionArg::Auto => faster(cpu),
        PrecisionArg::F32 => Precision::F32,
        PrecisionArg::Bf16 => Precision::Bf16,
    }
}

/// The plan for what was typed: that of the model if it is packed, else one scheme for all of it.
pub(crate) fn plan(typed: &Engine, model: &Model, cpu: &Cpu) -> Result<Plan> {
    let precision = precision(typed.precision, cpu);
    Ok(match (&model.packed, typed.scheme) {
        (Some(_), Some(scheme)) => {
            bail!(
                "--scheme {scheme}: {} is packed already; quantize the original model",
                model.name
            )
        }
        (None, Some(scheme)) if scheme.is_static() => {
            bail!("--scheme {scheme} needs ranges; pack the model with `mixdq quantize --static`")
        }
        (Some(packed), None) => packed.plan.clone().with_precision(precision),
        (None, Some(scheme)) => Plan::uniform(scheme, precision),
        (None, None) => Plan::float(precision),
    })
}

/// The plan in a file, for this model.
pub(crate) fn plan_of(path: &Path, model: &Model) -> Result<Plan> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the plan {}", path.display()))?;
    let fault = |fault: String| anyhow::anyhow!("the plan {}: {fault}", path.display());
    let plan = Plan::from_toml(&text).map_err(fault)?;
    plan.check(model).map_err(fault)?;
    Ok(plan)
}

/// The plan that gives the layers of the UNet this scheme, but for the first and the last: they have few weights, and nothing
/// corrects what rounding does there, so they take 8 bits with real activations (MixDQ protects them, too). So do text encoders, which
/// are small beside the UNet and run once for all steps. A decoder of few bits draws visible noise, so it takes 8 bits with the
/// same activations.
pub(crate) fn uniform_unet(scheme: Scheme, halves: Halves, precision: Precision) -> Plan {
    let weights = WeightScheme { bits: WeightBits::Eight, granularity: Granularity::Channel };
    let careful = Scheme { weights, activations: ActivationScheme::Float };
    Plan::uniform(careful, precision)
        .with_component("unet", scheme)
        .with_exceptions("unet", &["conv_in", "conv_out"], careful)
        .with_known("unet", Known { halves, ..Known::default() })
        .with_component("vae", Scheme { weights, ..scheme })
}

/// Open the model that was named, or the bundled one.
pub(crate) fn model(typed: &Source) -> Result<Model> {
    let path = match &typed.model {
        Some(path) => named(path),
        None => bundled()?,
    };
    let loras = typed.lora.iter().map(|text| lora(text)).collect::<Result<_>>()?;
    let vae = typed.vae.clone().or_else(|| typed.taesd.clone());
    Ok(Model::open(&path, &Extras { vae, loras })?)
}

/// The same, of real numbers as it was trained, with text encoders as [`Model::equalized`] makes them.
pub(crate) fn original(typed: &Source, cpu: &Cpu) -> Result<Model> {
    let model = model(typed)?;
    ensure!(
        model.packed.is_none(),
        "{} is packed already; name the original model with -m",
        model.name
    );
    Ok(model.equalized(cpu)?)
}

/// A path, or the name of a folder where models are kept.
fn named(path: &Path) -> PathBuf {
    let kept = knobs::models().map(|folder| folder.join(path));
    kept.filter(|kept| !path.exists() && kept.exists()).unwrap_or_else(|| path.to_owned())
}

fn bundled() -> Result<PathBuf> {
    let found = places().into_iter().map(|place| place.join(BUNDLED)).find(|path| path.is_dir());
    found.context("the bundled model is not there; keep its folder `models` beside the program, or name a model with -m")
}

/// Where the bundled model may be, best first.
fn places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = knobs::models().into_iter().collect();
    let binary = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
    if let Some(folder) = binary.as_deref().and_then(Path::parent) {
        places.extend([folder.join("models"), folder.join("../share/mixdq/models")]);
        // A source tree keeps the binary in target/release and its models at the root.
        let roots = folder.ancestors().filter(|root| root.join("Cargo.toml").is_file());
        places.extend(roots.map(|root| root.join("models")));
    }
    places
}

/// `FILE` or `FILE:SCALE`.
fn lora(text: &str) -> Result<(PathBuf, f32)> {
    match text.rsplit_once(':') {
        Some((file, scale)) if !Path::new(text).exists() => {
            let Ok(scale) = scale.parse::<f32>() else {
                bail!("--lora {text}: {scale:?} is not a scale; write FILE:0.8")
            };
            ensure!(scale.is_finite(), "--lora {text}: the scale must be finite");
            Ok((file.into(), scale))
        }
        _ => Ok((text.into(), 1.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::lora;

    #[test]
    fn a_scale_follows_the_last_colon() {
        assert_eq!(lora("a.safetensors:0.5").unwrap(), ("a.safetensors".into(), 0.5));
        assert_eq!(lora("a.safetensors").unwrap(), ("a.safetensors".into(), 1.0));
        assert!(lora("a.safetensors:much").is_err());
        assert!(lora("a.safetensors:inf").is_err());
    }
}
