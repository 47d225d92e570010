"""Says whether a full-size model with random weights does something.

Usage: alive.py picture FOLDER [bfloat16]
       alive.py shapes FAMILY

`picture` draws one picture with diffusers (in float32 if memory allows) and notes every layer's output deviation, which
has to lie between 0.05 and 20, as the picture's has to lie over 10 of 255. `shapes` compares the
list of tensors of `cargo xtask model` with those that diffusers and transformers make.
"""

import json
import os
import subprocess
import sys

import torch
from torch import nn

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

LAYERS = (nn.Linear, nn.Conv2d, nn.Embedding)
LIMITS = (0.05, 20.0)
DARKEST = 10.0


def watch(name, model, found):
    def hook(layer):
        def note(_module, _inputs, output):
            found.setdefault(f"{name}.{layer}", output.float().std().item())
        return note

    for layer, module in model.named_modules():
        if isinstance(module, LAYERS):
            module.register_forward_hook(hook(layer))


def draw(folder, dtype):
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    found = {}
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module):
            watch(name, part, found)
    generator = torch.Generator().manual_seed(0)
    settings = {"num_inference_steps": 1, "guidance_scale": 0.0, "width": 512, "height": 512}
    picture = pipe("a lighthouse at dawn", generator=generator, output_type="np", **settings)
    return found, 255 * picture.images.std().item()


def report(folder, dtype="float32"):
    found, picture = draw(folder, getattr(torch, dtype))
    for part in sorted({name.split(".")[0] for name in found}):
        own = {name: value for name, value in found.items() if name.startswith(part + ".")}
        low, high = min(own, key=own.get), max(own, key=own.get)
        print(f"{part}: {len(own)} layers, {own[low]:.3f} ({low}) to {own[high]:.3f} ({high})")
    dead = {n: v for n, v in found.items() if not LIMITS[0] <= v <= LIMITS[1]}
    for name, value in sorted(dead.items()):
        print(f"outside the limits: {name} {value:.4f}")
    print(f"picture: standard deviation {picture:.1f} of 255")
    return not dead and picture > DARKEST


def shapes(family):
    """Compares the names and shapes with those that diffusers and transformers make."""
    import transformers
    from diffusers import AutoencoderKL, UNet2DConditionModel

    command = ["cargo", "xtask", "model", "--list", family]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    same = True
    for name, part in listed.items():
        config = part["config"]
        with torch.device("meta"):
            if name.startswith("text"):
                model = getattr(transformers, config["architectures"][0])(
                    transformers.CLIPTextConfig(**config))
            elif name == "unet":
                model = UNet2DConditionModel.from_config(config)
            else:
                model = AutoencoderKL.from_config(config)
        wanted = {bare(k): list(v.shape) for k, v in model.state_dict().items()
                  if not k.endswith("position_ids")}
        ours = {bare(k): shape for k, shape in part["tensors"].items()}
        print(f"{family} {name}: {len(ours)} tensors, {'same' if ours == wanted else 'DIFFERENT'}")
        for key in sorted(set(ours) ^ set(wanted))[:8]:
            print(f"  only in {'ours' if key in ours else 'theirs'}: {key}")
        same &= ours == wanted
    return same


def bare(name):
    """Newer releases of transformers leave this prefix out."""
    return name.removeprefix("text_model.")


if __name__ == "__main__":
    torch.set_num_threads(2)
    modes = {"shapes": shapes, "picture": report}
    sys.exit(0 if modes[sys.argv[1]](*sys.argv[2:]) else 1)
