"""Writes `golden/tensors/scorer.safetensors`: what `models/pocket-scorer` says of a picture, by PyTorch.

    tools/.venv/bin/python tools/reference/scorer.py
"""

import json

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

import golden

FOLDER = golden.DATA.parent / "models" / "pocket-scorer"


@torch.no_grad()
def main():
    config = json.loads((FOLDER / "config.json").read_text())
    weights = {name: tensor.float() for name, tensor in load_file(FOLDER / "model.safetensors").items()}
    side = config["image_size"]
    rows = torch.linspace(-1, 1, side)
    plane = (5 * rows[:, None] * rows + 3 * rows).sin()
    pixels = torch.stack([plane, plane.T, -plane])[None]

    def conv(name, x, **more):
        return functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **more).relu()

    x = pixels
    layers = sum(name.startswith("body.") for name in weights) // 2
    for i in range(layers):
        # The first convolution of each level halves the picture; the first level has no other one.
        x = conv(f"body.{i}", x, stride=2 if i == 0 or i % 2 else 1, padding=2 if i == 0 else 1)
    x = conv("middle", x).flatten(1)
    found = {"pixels": pixels} | {name: x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
                                  for name in ("first", "second")}
    path = golden.OUT / "tensors" / "scorer.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, path)
    print(path.name, path.stat().st_size, {name: found[name].argmax().item() for name in ("first", "second")})


if __name__ == "__main__":
    main()
