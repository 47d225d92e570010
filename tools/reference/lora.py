"""Writes `testdata/lora`: the same low-rank changes under diffusers' and under kohya's names.

    tools/.venv/bin/python tools/reference/lora.py

Kohya's scripts name SDXL's UNet in the original layout and SD 1.x's in diffusers' layout, and
scale by `alpha / rank`, here 2 / 4.
"""

import torch
from safetensors.torch import save_file

import golden
import original

RANK, ALPHA = 4, 2.0
OUT = golden.DATA / "lora"
# Ends of the names of changed layers; a layer of each kind, also 3×3 and 1×1 convolutions.
UNET = ("to_q", "to_k", "to_v", "attn1.to_out.0", "0.ff.net.0.proj", "0.ff.net.2", "proj_in",
        "proj_out", "resnets.0.conv1", "resnets.0.time_emb_proj", "downsamplers.0.conv",
        "mid_block.resnets.1.conv2", "resnets.0.conv_shortcut")
TEXT = ("q_proj", "v_proj", "0.self_attn.k_proj", "0.self_attn.out_proj", "0.mlp.fc1", "0.mlp.fc2")


def factors(layer, generator):
    """`up @ down` moves every weight by about a quarter of its size."""
    weight = layer.weight
    inputs, kernel = weight.shape[1], weight.shape[2:]
    down = torch.randn((RANK, inputs, *kernel), generator=generator)
    up = torch.randn((weight.shape[0], RANK, *[1] * len(kernel)), generator=generator)
    up *= 0.25 * weight.std() / RANK ** 0.5
    return down.half(), up.half()


def changes(pipe, generator):
    """(component, name, down, up) of all changed layers."""
    second = ["text_encoder_2"] if hasattr(pipe, "text_encoder_2") else []
    for component in ["unet", "text_encoder", *second]:
        ends = UNET if component == "unet" else TEXT
        for name, layer in getattr(pipe, component).named_modules():
            if name.endswith(ends):
                yield component, name, *factors(layer, generator)


def write(stem, folder, seed):
    pipe = golden.pipeline_at(golden.DATA / "pipelines" / folder)
    generator = torch.Generator().manual_seed(seed)
    sdxl = hasattr(pipe, "text_encoder_2")
    plain, kohya = {}, {}
    for component, name, down, up in changes(pipe, generator):
        if component != "unet":
            name = "text_model." + name.removeprefix("text_model.")
        plain[f"{component}.{name}.lora_A.weight"] = down
        plain[f"{component}.{name}.lora_B.weight"] = up
        key = kohya_name(pipe, component, name, sdxl)
        kohya |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up * (RANK / ALPHA),
                  f"{key}.alpha": torch.tensor(ALPHA)}
    OUT.mkdir(exist_ok=True)
    for kind, tensors in (("diffusers", plain), ("kohya", kohya)):
        path = OUT / f"{stem}-{kind}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size / 1e3:.0f} kB")


def kohya_name(pipe, component, name, sdxl):
    if component == "unet" and sdxl:
        name = original.unet_name(name, pipe.unet.config.layers_per_block,
                                  original.attending_up(pipe.unet))
    prefix = {"unet": "unet", "text_encoder": "te1" if sdxl else "te", "text_encoder_2": "te2"}
    return f"lora_{prefix[component]}_{name}".replace(".", "_")


@torch.no_grad()
def merge(pipe, file, scale):
    """Adds a file of diffusers' names to the weights: what `load_lora_weights` must amount to."""
    from safetensors.torch import load_file

    tensors = load_file(OUT / file)
    for key, down in tensors.items():
        if not key.endswith("lora_A.weight"):
            continue
        component, _, name = key.removesuffix(".lora_A.weight").partition(".")
        model = getattr(pipe, component)
        bare = name if component == "unet" or component == "text_encoder_2" \
            else name.removeprefix("text_model.")
        weight = model.get_submodule(bare).weight
        up = tensors[key.replace("lora_A", "lora_B")].float()
        weight += scale * (up.flatten(1) @ down.float().flatten(1)).reshape(weight.shape)


def main():
    golden.quiet()
    write("tiny-sdxl", "tiny-sdxl-turbo", 11)
    write("tiny-sd15", "tiny-sd15", 12)


if __name__ == "__main__":
    main()
