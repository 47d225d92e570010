//! A model call in three parts, each with weights of its own: what the prompt alone decides, what the time decides as
//! well, and the rest.
//!
//! Keys and values of cross-attention, the embedding of the time and what each layer makes of it are the same for all
//! noise, so they are computed once and their weights released. The numbers are those of an undivided call.

use tensor::graph::{NodeId, Output, Part};
use tensor::program::{Format, Port, Target};
use tensor::{Device, Held, Plan, Precision, Program, Recording, Session};

use crate::denoise::Condition;
use crate::first_token::FirstTokens;
use crate::memory::Load;
use crate::request::{Phase, Watch};
use crate::stage::Stage;
use crate::{Error, TextToImage};

/// What may be kept of prompts at a time. More prompts are taken in groups, each with its own pass over the weights
/// that only prompts need.
const GIVEN_BYTES: usize = 256 << 20;

/// The programs of a model call.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// What the prompt decides.
    pub(crate) prompt: Program,
    /// What the time decides, given the former.
    pub(crate) time: Program,
    /// The prediction, given both.
    pub(crate) step: Program,
}

/// What steps are given for one prompt.
#[derive(Debug)]
pub(crate) struct Given {
    prompt: Vec<Held>,
    times: Vec<Vec<Held>>,
}

impl Programs {
    /// Compile the parts of a recorded model call.
    pub(crate) fn compile(recording: &Recording, plan: &Plan, target: &dyn Target) -> Self {
        let of_prompt = recording.steady(&["sample", "time"]);
        let given = recording.steady(&["sample"]);
        let results: Vec<Output> =
            recording.outputs().iter().map(|(_, node)| (*node).into()).collect();
        let compile = |outputs: &[Output], given: &[NodeId]| {
            Program::compile_part(recording, Part { outputs, given }, plan, target)
        };
        let step = compile(&results, &given);
        let of_time = given.into_iter().filter(|node| !of_prompt.contains(node));
        let time = compile(&as_read(of_time, &[&step]), &of_prompt);
        let prompt = compile(&as_read(of_prompt.into_iter(), &[&step, &time]), &[]);
        Self { prompt, time, step }
    }

    /// Prompts whose values are kept at a time.
    pub(crate) fn group(&self, times: usize) -> usize {
        (GIVEN_BYTES / self.given_bytes(times).max(1)).max(1)
    }

    /// Bytes that are kept for each prompt and this many times.
    pub(crate) fn given_bytes(&self, times: usize) -> usize {
        let bytes = |program: &Program| -> usize {
            let size = |port: &Port| program.buffer(port.buffer).bytes();
            program.outputs.iter().map(size).sum()
        };
        bytes(&self.prompt) + times * bytes(&self.time)
    }
}

/// Each value in the format in which the programs after it keep it.
fn as_read(nodes: impl Iterator<Item = NodeId>, readers: &[&Program]) -> Vec<Output> {
    let precision = |node: NodeId| {
        let name = node.to_string();
        let kept = readers.iter().find_map(|program| {
            Some(program.buffer(program.inputs[program.input(&name)?].buffer).format)
        });
        if kept == Some(Format::Bf16) { Precision::Bf16 } else { Precision::F32 }
    };
    nodes.map(|node| Output { node, precision: precision(node) }).collect()
}

/// Run the first two parts for each prompt and time. Their weights are released at the end.
pub(crate) fn given<D: Device>(
    pipeline: &TextToImage<'_, D>,
    (recording, programs): (&Recording, &Programs),
    (conditions, times): (&[Condition], &[Vec<f32>]),
    (load, watch): (Load, &Watch<'_>),
) -> Result<Vec<Given>, Error> {
    let stage = || Stage::new(pipeline, &pipeline.model.unet, (Phase::Denoise, watch));
    let mut first = stage();
    let mut sessions = first.sessions(programs.prompt.clone(), load)?;
    let mut of_prompts = Vec::with_capacity(conditions.len());
    for condition in conditions {
        condition.write(&mut sessions[0])?;
        of_prompts.push(first.hold(&mut sessions[0])?);
    }
    drop((sessions, first));
    if let Some(mut firsts) = FirstTokens::new(pipeline, recording)? {
        for (condition, values) in conditions.iter().zip(&mut of_prompts) {
            firsts.replace(condition, values, watch)?;
        }
    }
    let mut second = stage();
    let mut sessions = second.sessions(programs.time.clone(), load)?;
    let session = &mut sessions[0];
    let all = conditions.iter().zip(of_prompts).map(|(condition, prompt)| {
        session.restore(&prompt)?;
        condition.write(session)?;
        let times = times.iter().map(|time| {
            session.write("time", time)?;
            second.hold(session)
        });
        Ok(Given { times: times.collect::<Result<_, Error>>()?, prompt })
    });
    all.collect()
}

impl Given {
    /// Hand over what holds at all times.
    pub(crate) fn write_prompt<D: Device>(
        &self,
        session: &mut Session<'_, D>,
    ) -> Result<(), Error> {
        Ok(session.restore(&self.prompt)?)
    }

    /// Let go of what holds at all times, since no other picture needs it.
    pub(crate) fn release_prompt(&mut self) {
        self.prompt = Vec::new();
    }

    /// Hand over what holds at the time of this number.
    pub(crate) fn write_time<D: Device>(
        &self,
        time: usize,
        session: &mut Session<'_, D>,
    ) -> Result<(), Error> {
        Ok(session.restore(&self.times[time])?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tensor::{Control, Cpu, CpuWeights, Device, Precision, Program, Scheme, Session};

    use super::Programs;
    use crate::model::Extras;
    use crate::{Model, Plan, Request, TextToImage, denoise};

    /// Numbers that differ from each other.
    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 40.0).collect()
    }

    fn run<'a>(cpu: &'a Cpu, program: &Program, values: &[tensor::Held]) -> Session<'a, Cpu> {
        let mut session = Session::with_program(cpu, program.clone()).unwrap();
        let mut weights = CpuWeights::default();
        cpu.prepare(&mut weights, program, &Control::default()).unwrap();
        for port in program.inputs.iter().filter(|port| !port.kept) {
            session.write(&port.name, &numbers(port.shape.elements())).unwrap();
        }
        session.restore(values).unwrap();
        session.run(&weights, &Control::default()).unwrap();
        session
    }

    #[test]
    fn three_parts_predict_what_the_whole_does() {
        let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines");
        let cpu = Cpu::detect(2);
        for name in ["tiny-sdxl-turbo", "tiny-sd15", "tiny-lcm"] {
            let model = Model::open(&pipelines.join(name), &Extras::default()).unwrap();
            let integers = |scheme: &str| -> Plan {
                Plan::uniform(scheme.parse::<Scheme>().unwrap(), Precision::Bf16)
            };
            for plan in [
                Plan::float(Precision::F32),
                Plan::float(Precision::Bf16),
                integers("w8a8"),
                integers("w4a16"),
            ] {
                let pipeline = TextToImage::new(&cpu, &model, &plan);
                let request = Request {
                    width: Some(64),
                    height: Some(64),
                    guidance: Some(2.0),
                    ..Request::default()
                };
                let settings = pipeline.settings(&request).unwrap();
                let recording = denoise::recording(&pipeline, &settings).unwrap();
                let plan = plan.component("unet");
                let programs = Programs::compile(&recording, &plan, &cpu);
                assert!(!programs.prompt.steps.is_empty() && !programs.time.steps.is_empty());
                let prompt = run(&cpu, &programs.prompt, &[]).hold().unwrap();
                let mut given = run(&cpu, &programs.time, &prompt).hold().unwrap();
                given.extend(prompt);
                let step = run(&cpu, &programs.step, &given);
                let whole = run(&cpu, &Program::compile(&recording, &plan, &cpu), &[]);
                assert_eq!(
                    step.read("prediction").unwrap(),
                    whole.read("prediction").unwrap(),
                    "{name} {}",
                    plan.default
                );
                let parts = [programs.prompt, programs.time, programs.step];
                let parts: u64 = parts.iter().map(Program::multiply_adds).sum();
                assert_eq!(parts, whole.program().multiply_adds());
            }
        }
    }
}
