"""Writes `testdata/golden`: pictures that diffusers draws in single precision on the CPU.

    tools/.venv/bin/python tools/reference/golden.py [NAME ...]

The rows are in `cases.py`. Every picture must have contrast, must move with prompt, seed,
negative prompt and scheduler, and must not depend on the order of summation: it is drawn a second
time with other convolution and matrix routines, and the two may differ by one level.
"""

import json
import sys
import warnings
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers

import cases

DATA = Path(__file__).resolve().parents[2] / "testdata"
OUT = DATA / "golden"
CONTRAST, MOVED = 0.15, 2.0


def pipeline_at(path):
    """The folder's pipeline in single precision, whatever its files hold."""
    variant = "fp16" if (path / "unet" / "diffusion_pytorch_model.fp16.safetensors").exists() else None
    pipe = diffusers.DiffusionPipeline.from_pretrained(path, dtype=torch.float32, variant=variant)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def scheduler_of(path, change):
    """A whole `scheduler_config.json`: the pipeline's own with `change` over it."""
    own = json.loads((path / "scheduler" / "scheduler_config.json").read_text())
    if change["_class_name"] != own["_class_name"]:
        kept = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "steps_offset",
                "timestep_spacing", "prediction_type")
        own = {key: own[key] for key in kept if key in own}
    return {**own, **change}


def scheduler_from(config):
    kind = getattr(diffusers, config["_class_name"])
    return kind.from_config({k: v for k, v in config.items() if not k.startswith("_")})


def draw(pipe, row, **more):
    """Pictures of a row, one by one: picture `i` has its own generator."""
    arguments = {"prompt": row["prompt"], "width": row["width"], "height": row["height"],
                 "num_inference_steps": row["steps"], "guidance_scale": row["cfg"],
                 "clip_skip": row["clip_skip"], **more}
    if row["negative"] is not None:
        arguments["negative_prompt"] = row["negative"]
    return [pipe(**arguments, generator=torch.Generator().manual_seed(row["seed"] + i)).images[0]
            for i in range(row["batch"])]


def distance(one, other):
    return np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float))


def with_setting(pipe, row):
    if row["scheduler"]:
        pipe.scheduler = scheduler_from(row["scheduler"])
    for file, scale in row["lora"]:
        load_lora(pipe, DATA / "lora" / file)
        pipe.fuse_lora(lora_scale=scale)
        pipe.unload_lora_weights()
    return pipe


def load_lora(pipe, path):
    """What `load_lora_weights` does, for text models without the level that its names have."""
    tensors, alphas = pipe.lora_state_dict(path, unet_config=pipe.unet.config)[:2]

    def present(named):
        return {k.replace("text_encoder.text_model.", "text_encoder."): v for k, v in (named or {}).items()}

    tensors, alphas = present(tensors), present(alphas) or None
    pipe.load_lora_into_unet(tensors, network_alphas=alphas, unet=pipe.unet, _pipeline=pipe)
    for name in ("text_encoder", "text_encoder_2"):
        if hasattr(pipe, name):
            pipe.load_lora_into_text_encoder(tensors, network_alphas=alphas, prefix=name,
                                             text_encoder=getattr(pipe, name), _pipeline=pipe)


def moves(path, row, change):
    """How far the picture moves with each of its inputs; fails if one does nothing."""
    first = draw(with_setting(pipeline_at(path), row), row)[0]
    other_scheduler = {"scheduler": scheduler_of(path, {**row["own"], **change})}
    changes = {"prompt": {"prompt": cases.ROBOT}, "seed": {"seed": row["seed"] + 1},
               "scheduler": other_scheduler}
    if "LatentConsistency" not in type(pipeline_at(path)).__name__:
        changes["negative prompt"] = {"negative": "a castle floating in the clouds"}
    for name, values in changes.items():
        changed = {**row, **values}
        moved = distance(first, draw(with_setting(pipeline_at(path), changed), changed)[0]).mean()
        print(f"  {name} moves the picture by {moved:.1f}")
        assert moved >= MOVED, name


def record(folder, path, row, pipe):
    """Draws a row, checks it and writes its pictures."""
    fresh = with_setting(pipe, row)
    pictures = draw(fresh, row)
    scheduler = row["scheduler"] or row["own"]
    fresh.scheduler = scheduler_from(scheduler)
    with torch.backends.mkldnn.flags(enabled=False):
        again = draw(fresh, row)
    for name, picture, other in zip(row["png"], pictures, again):
        contrast = np.asarray(picture).std() / 255
        apart = distance(picture, other)
        print(f"  {name}: deviation {contrast:.2f}, rounding {apart.max():.0f} ({apart.mean():.4f})")
        assert contrast >= CONTRAST and apart.max() <= 1, name
        picture.save(folder / name, optimize=True)


def rows_of(name, path, wanted):
    for case, fields in wanted.items():
        row = {"name": case, "pipeline": name, **cases.BASE, **fields}
        if row["scheduler"]:
            row["scheduler"] = scheduler_of(path, row["scheduler"])
        row["png"] = [f"{case}.png"] if row["batch"] == 1 else \
            [f"{case}-{i + 1}.png" for i in range(row["batch"])]
        yield row


def make(name):
    path, folder = DATA / "pipelines" / name, OUT / name
    if not path.exists():
        path = DATA.parent / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    own = json.loads((path / "scheduler" / "scheduler_config.json").read_text())
    rows = list(rows_of(name, path, cases.CASES[name]))
    base, change = cases.MOVES[name]
    print(name)
    moves(path, {**next(r for r in rows if r["name"] == base), "own": own}, change)
    pipe = pipeline_at(path)
    for row in rows:
        one = pipeline_at(path) if row["lora"] else pipe
        one.scheduler = scheduler_from(own)
        record(folder, path, {**row, "own": own}, one)
    write_rows(OUT / f"{name}.json", rows)


def write_rows(path, rows):
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def quiet():
    torch.set_num_threads(1)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="TF32")
    # This diffusers looks for the level that this transformers has taken out of the text model.
    transformers.CLIPTextModel.text_model = property(lambda model: model)


def main():
    quiet()
    for name in sys.argv[1:] or cases.CASES:
        make(name)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
