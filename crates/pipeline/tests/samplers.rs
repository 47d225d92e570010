//! Noise and samplers against numbers that PyTorch and diffusers gave.
//!
//! The data and the scripts that made it: `testdata/samplers`, `tools/reference/noise.py` and
//! `tools/reference/samplers.py`.

#![cfg(test)]

use std::path::PathBuf;

use pipeline::{
    noise::Generator,
    sampler::{Call, Sampler},
    schedule::{Family, Path, SchedulerConfig, Table},
};
use serde_json::Value;

/// Seed of the golden runs.
const SEED: u64 = 1234;
/// Values of a golden sample, and how many pictures they are.
const SAMPLE: (usize, usize) = (12, 2);

/// A golden file, as bytes.
fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/samplers").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// FNV-1a over the bytes of the words, as the script hashes long draws.
fn digest(words: &[u32]) -> u32 {
    words
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[test]
fn noise_is_bit_for_bit_what_torch_draws() {
    let bytes = golden("noise.bin");
    let mut words =
        bytes.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word)).peekable();
    let mut failures = Vec::new();
    while words.peek().is_some() {
        let mut take = || words.next().unwrap();
        let seed = u64::from(take()) | u64::from(take()) << 32;
        let mut generator = Generator::new(seed);
        for request in 0..take() {
            let (n, stored) = (take() as usize, take());
            let drawn: Vec<u32> = generator.normal(n).iter().map(|x| x.to_bits()).collect();
            let wrong = if stored == 0 {
                usize::from(digest(&drawn) != take())
            } else {
                drawn.iter().filter(|&&x| x != take()).count()
            };
            if wrong != 0 {
                failures.push(format!("seed {seed}, request {request} of {n}: {wrong} wrong"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// How far a run may end from the recorded one, relative to its largest value and at least 1.
const RUN_TOLERANCE: f64 = 4e-6;
/// As much for each unit of the first sample's standard deviation: with zero terminal
/// signal-to-noise ratio Euler starts at sigma 4096, and one rounding there is 2e-4.
const RUN_TOLERANCE_PER_SIGMA: f64 = 3e-8;
/// Two units in the last place: PyTorch's square root is not correctly rounded on every machine.
const SIGMA_TOLERANCE: f64 = 2.5e-7;
/// Timesteps found by interpolation between logarithms are not whole numbers.
const TIMESTEP_TOLERANCE: f64 = 2e-4;

macro_rules! runs_like_diffusers {
    ($($name:ident: $class:literal),* $(,)?) => { $(
        #[test]
        fn $name() {
            let cases: Value = serde_json::from_slice(&golden(concat!($class, ".json"))).unwrap();
            let failures: Vec<String> =
                cases.as_array().unwrap().iter().filter_map(|case| check($class, case)).collect();
            assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
        }
    )* };
}

runs_like_diffusers! {
    euler_runs_like_diffusers: "EulerDiscreteScheduler",
    euler_ancestral_runs_like_diffusers: "EulerAncestralDiscreteScheduler",
    heun_runs_like_diffusers: "HeunDiscreteScheduler",
    lcm_runs_like_diffusers: "LCMScheduler",
    tcd_runs_like_diffusers: "TCDScheduler",
    ddim_runs_like_diffusers: "DDIMScheduler",
    pndm_runs_like_diffusers: "PNDMScheduler",
    dpm_multistep_runs_like_diffusers: "DPMSolverMultistepScheduler",
    unipc_runs_like_diffusers: "UniPCMultistepScheduler",
}

/// What is wrong with one recorded run, if anything.
fn check(class: &str, case: &Value) -> Option<String> {
    let mut fields = case["config"].clone();
    fields["_class_name"] = class.into();
    let steps = case["steps"].as_u64().unwrap() as usize;
    let config = SchedulerConfig::from_config(&fields).unwrap();
    let config = config.with_eta(case["eta"].as_f64().unwrap()).unwrap();
    let mut sampler = config.sampler(steps).unwrap();
    let numbers = |key: &str| -> Vec<f64> {
        case[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let mut faults = Vec::new();
    let mut compare = |what: &str, ours: &[f32], key: &str, tolerance: f64| {
        let theirs = numbers(key);
        let worst = worst(ours, &theirs);
        if ours.len() != theirs.len() || worst.is_nan() || worst > tolerance {
            faults.push(format!("{what} off by {worst:.1e}: {ours:?} not {theirs:?}"));
        }
    };
    compare("timesteps", sampler.timesteps(), "timesteps", TIMESTEP_TOLERANCE);
    if let Some(sigmas) = sigmas(&config, steps) {
        compare("sigmas", &sigmas, "sigmas", SIGMA_TOLERANCE);
    }
    let init = case["init"].as_f64().unwrap();
    if (f64::from(sampler.init_noise_sigma()) / init - 1.0).abs() > SIGMA_TOLERANCE {
        faults.push(format!("init {} not {init}", sampler.init_noise_sigma()));
    }
    let (trace, last) = run(sampler.as_mut());
    let tolerance = RUN_TOLERANCE.max(RUN_TOLERANCE_PER_SIGMA * init);
    for (what, ours) in [("trace", trace), ("last", last)] {
        let worst = worst(&ours, &numbers(what));
        if worst.is_nan() || worst > tolerance {
            faults.push(format!("{what} off by {worst:.1e}"));
        }
    }
    (!faults.is_empty()).then(|| format!("{} steps {steps}: {}", case["config"], faults.join("; ")))
}

/// Sigmas of the families that the recorded runs have them for; Heun's come twice there.
fn sigmas(config: &SchedulerConfig, steps: usize) -> Option<Vec<f32>> {
    let (family, settings) = (config.family(), config.settings());
    let table = Table::new(family, settings);
    match family {
        Family::Euler | Family::EulerAncestral => {
            Some(Path::of_levels(settings, &table, steps).sigmas)
        }
        Family::DpmMultistep | Family::UniPc => {
            Some(Path::of_solver(family, settings, &table, steps).unwrap().sigmas)
        }
        _ => None,
    }
}

/// First value after each call, and the whole last sample, with the stand-in of the script.
fn run(sampler: &mut dyn Sampler) -> (Vec<f32>, Vec<f32>) {
    let mut noise = Generator::new(SEED);
    let init = sampler.init_noise_sigma();
    let mut sample: Vec<f32> = noise.normal(SAMPLE.0).iter().map(|x| x * init).collect();
    let mut trace = Vec::new();
    for index in 0..sampler.timesteps().len() {
        let t = f64::from(sampler.timesteps()[index]);
        let input = sampler.scale_input(index, &sample);
        let model = |(i, x): (usize, &f32)| {
            let x = f64::from(*x);
            (0.9 * (1.3 * x + 0.002 * t + 0.4 * i as f64).sin() + 0.1 * x) as f32
        };
        let output: Vec<f32> = input.iter().enumerate().map(model).collect();
        let call = Call { index, output: &output, sample: &sample, images: SAMPLE.1 };
        sample = sampler.step(call, &mut |n| noise.normal(n));
        trace.push(sample[0]);
    }
    (trace, sample)
}

/// Largest difference, relative to the largest magnitude and at least 1.
fn worst(ours: &[f32], theirs: &[f64]) -> f64 {
    let scale = theirs.iter().fold(1.0_f64, |max, x| max.max(x.abs()));
    let differences = ours.iter().zip(theirs).map(|(a, b)| (f64::from(*a) - b).abs() / scale);
    differences.fold(0.0, |max, d| if d.is_nan() || d > max { d } else { max })
}

mod properties {
    //! No configuration makes a sampler panic: it is refused, or it runs to the end.

    use pipeline::schedule::{NoiseSchedule, SamplingMethod, SchedulerConfig};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// Values that are right for some fields and wrong for others.
    fn value() -> impl Strategy<Value = Value> {
        let words = [
            "linear",
            "scaled_linear",
            "squaredcos_cap_v2",
            "exp",
            "leading",
            "trailing",
            "linspace",
            "epsilon",
            "v_prediction",
            "sample",
            "zero",
            "sigma_min",
            "log_linear",
            "continuous",
            "dpmsolver",
            "dpmsolver++",
            "sde-dpmsolver++",
            "heun",
            "bh1",
            "-Infinity",
        ];
        prop_oneof![
            proptest::sample::select(words.to_vec()).prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            (0_u32..1200).prop_map(Value::from),
            (-2.0..30.0).prop_map(Value::from),
            Just(json!([0.1, 0.2, 0.3])),
            Just(Value::Null),
        ]
    }

    fn field() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(vec![
            "num_train_timesteps",
            "beta_start",
            "beta_end",
            "beta_schedule",
            "trained_betas",
            "prediction_type",
            "timestep_spacing",
            "steps_offset",
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "use_lu_lambdas",
            "sigma_min",
            "sigma_max",
            "thresholding",
            "dynamic_thresholding_ratio",
            "sample_max_value",
            "clip_sample",
            "clip_sample_range",
            "solver_order",
            "solver_type",
            "lower_order_final",
            "final_sigmas_type",
            "rescale_betas_zero_snr",
            "interpolation_type",
            "timestep_type",
            "original_inference_steps",
            "timestep_scaling",
            "set_alpha_to_one",
            "skip_prk_steps",
            "algorithm_type",
            "euler_at_final",
            "lambda_min_clipped",
            "predict_x0",
            "disable_corrector",
            "frobnicate",
        ])
    }

    fn method() -> impl Strategy<Value = SamplingMethod> {
        let names = SamplingMethod::names();
        let names: Vec<String> = names.split(", ").map(str::to_owned).collect();
        proptest::sample::select(names).prop_map(|name| name.parse().unwrap())
    }

    fn schedule() -> impl Strategy<Value = NoiseSchedule> {
        let names = NoiseSchedule::names();
        let names: Vec<String> = names.split(", ").map(str::to_owned).collect();
        proptest::sample::select(names).prop_map(|name| name.parse().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn configurations_are_refused_or_run(
            fields in proptest::collection::hash_map(field(), value(), 0..4),
            method in method(),
            schedule in proptest::option::of(schedule()),
            steps in prop_oneof![0_usize..40, 990_usize..1010],
        ) {
            let mut json = json!({"_class_name": "EulerDiscreteScheduler"});
            for (field, value) in fields {
                json[field] = value;
            }
            let config = SchedulerConfig::from_config(&json).and_then(|c| c.with_method(method));
            let config = config.and_then(|c| match schedule {
                Some(schedule) => c.with_schedule(schedule),
                None => Ok(c),
            });
            if let Ok(mut sampler) = config.and_then(|c| c.sampler(steps)) {
                let calls = sampler.timesteps().len();
                // Trailing steps that start at a clipped noise level are fewer, as in diffusers.
                let clipped = json["lambda_min_clipped"].is_number();
                prop_assert!(clipped || calls + 1 >= steps, "{calls} calls");
                let (trace, last) = super::run(sampler.as_mut());
                prop_assert_eq!((trace.len(), last.len()), (calls, super::SAMPLE.0));
            }
        }
    }
}
