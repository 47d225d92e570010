"""Writes `testdata/golden/layers.safetensors`: single layers of packed models, in PyTorch.

    tools/.venv/bin/python tools/reference/layers.py target/release/mixdq

The bundled model is packed in each scheme. A second reader (`packed.py`) takes the weights that the file stands for,
inputs are rounded as docs/format.md says, and PyTorch multiplies in double precision. Inputs are like those of real layers:
most numbers small, some large.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import golden
from packed import Packed, ranged, rounded

SCHEMES = ["w8a8", "w4a8", "w2a8", "w8a16", "w4a16", "w8a4"]
LAYERS = {
    "conv_in": {"padding": 1},
    "down_blocks.0.resnets.0.conv1": {"padding": 1},
    "down_blocks.0.downsamplers.0.conv": {"padding": 1, "stride": 2},
    "up_blocks.2.resnets.0.conv_shortcut": {},
    "conv_out": {"padding": 1},
    "time_embedding.linear_1": None,
    "up_blocks.2.attentions.0.transformer_blocks.0.attn2.to_v": None,
    "up_blocks.2.attentions.0.transformer_blocks.0.ff.net.2": None,
}
OUT = golden.OUT / "layers.safetensors"


def given(weight, generator):
    shape = (2, weight.shape[1], 6, 6) if weight.ndim == 4 else (2, 5, weight.shape[1])
    return torch.randn(shape, generator=generator) * torch.randn(shape, generator=generator).exp()


def last(x):
    """Channels last, as the engine has them."""
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).float().contiguous()


def main():
    binary = Path(sys.argv[1]).resolve()
    model, tensors = golden.DATA.parent / "models" / "pocket-turbo", {}
    for scheme in SCHEMES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.mixdq"
            command = [binary, "quantize", "--scheme", scheme, "-m", model, "-o", path]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            packed = Packed(path)
            generator = torch.Generator().manual_seed(7)
            for layer, convolution in LAYERS.items():
                weight = packed.weight("unet", f"{layer}.weight").double()
                x = given(weight, generator)
                tensors[f"{layer}/input"] = last(x)
                factors = packed.factors("unet", layer)
                x = x if factors is None else x * factors
                bits, _ = packed.acts("unet", layer)
                dims = ranged(weight.shape)
                # Codes are those of single precision: a last bit may decide between two.
                x = (rounded(x, dims, 2**bits - 1) if bits < 16 else x).double()
                if convolution is None:
                    y = torch.nn.functional.linear(x, weight)
                else:
                    y = torch.nn.functional.conv2d(x, weight, **convolution)
                tensors[f"{layer}/{scheme}"] = last(y)
    save_file(tensors, OUT)
    print(f"{OUT.relative_to(golden.DATA.parent)}: {len(tensors)} tensors")


if __name__ == "__main__":
    main()
