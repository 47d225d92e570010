//! Environment variables, declared once. Nothing else in the workspace reads the environment.

use std::path::PathBuf;

/// A variable, as `mixdq doctor` and the documentation list it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knob {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) help: &'static str,
}

/// Forces a lower instruction set than the CPU has.
const ISA: Knob = Knob {
    name: "MIXDQ_ISA",
    help: "instruction set to use instead of the best: scalar, avx2, avxvnni, avx512, avx512vnni, avx512bf16, amx, neon",
};

/// Where models are looked for.
const MODELS: Knob =
    Knob { name: "MIXDQ_MODELS", help: "folder in which models are looked for by name" };

/// All of them.
pub(crate) const ALL: [Knob; 2] = [ISA, MODELS];

/// The instruction set that was asked for.
pub(crate) fn isa() -> Option<String> {
    read(ISA)
}

/// The folder of models that was named.
pub(crate) fn models() -> Option<PathBuf> {
    read(MODELS).map(PathBuf::from)
}

#[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
fn read(knob: Knob) -> Option<String> {
    std::env::var(knob.name).ok().filter(|value| !value.is_empty())
}
