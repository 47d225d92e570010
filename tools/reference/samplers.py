"""Writes the golden runs of `crates/pipeline/tests/samplers.rs`.

    tools/.venv/bin/python tools/reference/samplers.py

For every scheduler of diffusers that the project follows, and many configurations of each:
timesteps, sigmas, the standard deviation of the first sample, and a run on two
"pictures" of six numbers with a smooth stand-in for the model that Rust computes alike.
One JSON file per scheduler, one case per line, `testdata/samplers/<class>.json`. A case:

    config     fields of scheduler_config.json without the class name
    steps, eta
    timesteps, sigmas (where there are any), init
    trace      first value of the sample after every call
    last       the whole sample after the last call

Noise comes from `torch.Generator` with the seed below, first for the sample, then for the steps.
The Beta schedule needs SciPy only for one quantile function, which mpmath gives here.
"""

import functools
import inspect
import json
import math
from pathlib import Path
from types import SimpleNamespace

import diffusers
import mpmath
import torch

OUT = Path(__file__).resolve().parents[2] / "testdata" / "samplers"
SEED = 1234
SHAPE = (2, 1, 2, 3)
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SPACINGS = ("leading", "trailing", "linspace")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
CURVES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
TRAINED = [round(0.002 + 0.0005 * i + 0.00001 * i * i, 7) for i in range(50)]


@functools.cache
def beta_ppf(p, a, b):
    """Quantile of the beta distribution by bisection at 25 digits."""
    mpmath.mp.dps = 25
    if p <= 0 or p >= 1:
        return float(p)
    low, high = mpmath.mpf(0), mpmath.mpf(1)
    for _ in range(75):
        middle = (low + high) / 2
        if mpmath.betainc(a, b, 0, middle, regularized=True) < p:
            low = middle
        else:
            high = middle
    return float(low)


def without_scipy():
    """Lets diffusers make Beta schedules on a machine without SciPy."""
    stats = SimpleNamespace(beta=SimpleNamespace(ppf=beta_ppf))
    for name in ("euler_discrete", "heun_discrete", "dpmsolver_multistep", "unipc_multistep"):
        module = getattr(diffusers.schedulers, f"scheduling_{name}")
        module.is_scipy_available = lambda: True
        module.scipy = SimpleNamespace(stats=stats)


def grid(base, spacings=SPACINGS, predictions=PREDICTIONS):
    for spacing in spacings:
        for prediction in predictions:
            yield {**SD, **base, "timestep_spacing": spacing, "prediction_type": prediction}


def bent(base):
    for curve in CURVES:
        yield {**SD, **base, curve: True}
        yield {**SD, **base, curve: True, "timestep_spacing": "leading", "steps_offset": 1}
        yield {**SD, **base, curve: True, "sigma_min": 0.05, "sigma_max": 12.0}


def tables(base):
    """Other training tables."""
    yield {**base}
    yield {**base, "beta_schedule": "squaredcos_cap_v2"}
    yield {**base, "trained_betas": TRAINED, "num_train_timesteps": len(TRAINED)}
    yield {**base, **SD, "num_train_timesteps": 500}


ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
V = {"prediction_type": "v_prediction"}


def euler():
    yield from grid({"steps_offset": 1})
    yield from bent({})
    yield from tables({})
    yield {**SD, **ZERO, **V}
    yield {**SD, "interpolation_type": "log_linear"}
    yield {**SD, "interpolation_type": "log_linear", "use_karras_sigmas": True}
    yield {**SD, "final_sigmas_type": "sigma_min", "timestep_spacing": "trailing"}
    yield {**SD, **V, "timestep_type": "continuous", "use_karras_sigmas": True}
    yield {**SD, "timestep_type": "continuous"}


def ancestral():
    yield from grid({"steps_offset": 1}, predictions=PREDICTIONS[:2])
    yield from tables({})
    yield {**SD, **ZERO, **V}


def heun():
    yield from grid({"steps_offset": 1})
    yield from bent({})
    yield from tables({})
    yield {"beta_schedule": "exp"}
    yield {**SD, "clip_sample": True, "clip_sample_range": 0.7}


def consistency():
    for prediction in PREDICTIONS:
        yield {**SD, "prediction_type": prediction}
    yield from tables({})
    yield {**SD, **ZERO, **V}
    yield {**SD, "original_inference_steps": 100}
    yield {**SD, "original_inference_steps": 20, "timestep_spacing": "trailing"}


def lcm():
    yield from consistency()
    yield {**SD, "timestep_scaling": 0.01, "set_alpha_to_one": False}
    yield {**SD, "clip_sample": True, "clip_sample_range": 1.5}
    yield {**SD, "thresholding": True, "sample_max_value": 1.8, "dynamic_thresholding_ratio": 0.7}


def ddim():
    yield from grid({"clip_sample": False, "steps_offset": 1})
    yield from tables({})
    yield {**SD, **ZERO, **V, "clip_sample": False}
    yield {**SD, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    yield {**SD, "clip_sample": True, "clip_sample_range": 1.3, **V}
    yield {**SD, "thresholding": True, "sample_max_value": 1.6, "dynamic_thresholding_ratio": 0.8}


def pndm():
    for skip in (True, False):
        base = {"skip_prk_steps": skip, "steps_offset": 1 if skip else 0}
        yield from grid(base, predictions=PREDICTIONS[:2])
    yield from tables({"skip_prk_steps": True})
    yield {**SD, "skip_prk_steps": True, "set_alpha_to_one": True, "steps_offset": 1}
    yield {**SD, "set_alpha_to_one": True}


def multistep():
    yield from grid({"steps_offset": 1})
    yield from bent({})
    yield from tables({})
    yield {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}
    yield {**SD, **ZERO, **V}
    yield {**SD, "final_sigmas_type": "sigma_min"}
    yield {**SD, "final_sigmas_type": "sigma_min", "use_karras_sigmas": True}
    yield {**SD, "thresholding": True, "sample_max_value": 1.7, "dynamic_thresholding_ratio": 0.9}


def dpm():
    yield from multistep()
    for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"):
        for order in (1, 2, 3):
            for kind in ("midpoint", "heun"):
                if algorithm == "sde-dpmsolver" and order == 3:
                    continue  # no such update
                form = {"algorithm_type": algorithm, "solver_order": order, "solver_type": kind}
                if "++" not in algorithm:
                    form["final_sigmas_type"] = "sigma_min"
                yield {**SD, **form}
                if order > 1 and "++" not in algorithm:
                    yield {**SD, **form, **V, "thresholding": True, "sample_max_value": 2.0}
    yield {**SD, "use_lu_lambdas": True}
    yield {**SD, "use_lu_lambdas": True, "sigma_min": 0.05, "final_sigmas_type": "sigma_min"}
    yield {**SD, "euler_at_final": True, "lower_order_final": False}
    yield {**SD, "lower_order_final": False, "final_sigmas_type": "sigma_min", "solver_order": 3}
    yield {**SD, "lambda_min_clipped": -1.5}
    yield {**SD, "lambda_min_clipped": -1.5, "timestep_spacing": "trailing"}
    yield {**SD, "lambda_min_clipped": -1.5, "timestep_spacing": "leading"}
    yield {**SD, "prediction_type": "sample", "algorithm_type": "dpmsolver",
           "final_sigmas_type": "sigma_min"}


def unipc():
    yield from multistep()
    for order in (1, 2, 3, 4):
        for kind in ("bh1", "bh2"):
            for x0 in (True, False):
                yield {**SD, "solver_order": order, "solver_type": kind, "predict_x0": x0,
                       "final_sigmas_type": "sigma_min"}
    yield {**SD, "solver_order": 3}
    yield {**SD, "predict_x0": False, **V, "final_sigmas_type": "sigma_min"}
    yield {**SD, "disable_corrector": [0, 2]}
    yield {**SD, "lower_order_final": False, "final_sigmas_type": "sigma_min"}


SETS = {
    "EulerDiscreteScheduler": euler,
    "EulerAncestralDiscreteScheduler": ancestral,
    "HeunDiscreteScheduler": heun,
    "LCMScheduler": lcm,
    "TCDScheduler": consistency,
    "DDIMScheduler": ddim,
    "PNDMScheduler": pndm,
    "DPMSolverMultistepScheduler": dpm,
    "UniPCMultistepScheduler": unipc,
}
ETAS = {"DDIMScheduler": (0.0, 0.4), "TCDScheduler": (0.0, 0.3)}


def model(x, t):
    """A smooth stand-in: 0.9 sin(1.3 x + 0.002 t + 0.4 i) + 0.1 x in double precision."""
    flat = x.double().flatten()
    phase = torch.arange(flat.numel(), dtype=torch.float64) * 0.4
    out = 0.9 * torch.sin(1.3 * flat + 0.002 * float(t) + phase) + 0.1 * flat
    return out.float().reshape(x.shape)


def run(name, config, steps, eta):
    scheduler = getattr(diffusers, name).from_config(config)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(SEED)
    sample = torch.randn(SHAPE, generator=generator) * scheduler.init_noise_sigma
    takes = inspect.signature(scheduler.step).parameters
    extra = {"generator": generator} if "generator" in takes else {}
    if "eta" in takes:
        extra["eta"] = eta
    trace = []
    for t in scheduler.timesteps:
        output = model(scheduler.scale_model_input(sample, t), t)
        sample = scheduler.step(output, t, sample, **extra).prev_sample
        trace.append(sample.flatten()[0].item())
    case = {"config": config, "steps": steps, "eta": eta,
            "timesteps": scheduler.timesteps.tolist(), "init": float(scheduler.init_noise_sigma)}
    if hasattr(scheduler, "sigmas"):
        case["sigmas"] = scheduler.sigmas.tolist()
    case |= {"trace": trace, "last": sample.flatten().tolist()}
    return case


def short(value):
    """Nine significant digits, which single precision survives."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("not finite")
        number = float(f"{value:.9g}")
        return int(number) if number == int(number) and abs(number) < 1e9 else number
    if isinstance(value, list):
        return [short(item) for item in value]
    return value


def line(case):
    case = {k: v if k == "config" else short(v) for k, v in case.items()}
    return json.dumps(case, separators=(",", ":"))


def main():
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()
    without_scipy()
    OUT.mkdir(parents=True, exist_ok=True)
    for name, configs in SETS.items():
        lines, left_out = [], []
        for config in configs():
            for steps in (1, 4, 20):
                for eta in ETAS.get(name, (0.0,)):
                    try:
                        lines.append(line(run(name, config, steps, eta)))
                    except Exception as error:  # diffusers refuses some combinations
                        left_out.append(f"  {config} {steps}: {type(error).__name__} {error}"[:200])
        path = OUT / f"{name}.json"
        path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
        print(name, len(lines), "cases,", path.stat().st_size, "bytes, left out:", len(left_out))
        print("\n".join(left_out))


if __name__ == "__main__":
    main()
