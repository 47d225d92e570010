"""Writes the tiny pipelines of `testdata/pipelines`.

    tools/.venv/bin/python tools/reference/pipelines.py [NAME ...]

Random weights, deterministic, one diffusers folder per model family, in the file layouts
that published folders have: see `LAYOUTS`. How the weights are made lively: `alive.py`.
"""

import json
import shutil
import sys
import zlib
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

import alive
import layout
import vocabulary
from families import FAMILIES

ROOT = Path(__file__).resolve().parents[2] / "testdata" / "pipelines"
PROMPTS = ["a photo of a cat", "a robot reading a newspaper in the rain, neon lights", "", "山水画"]

# dtype, variant of the file name, sharded UNet, one tokenizer.json, names with `text_model.`
LAYOUTS = {
    "tiny-sdxl-turbo": {"dtype": "f16"},
    "tiny-sd-turbo": {"dtype": "f16", "variant": "fp16"},
    "tiny-sd15": {"dtype": "bf16", "old_names": True},
    "tiny-lcm": {"dtype": "f16", "tokenizer_json": True, "bare_text": True},
    "tiny-nomid": {"dtype": "f32", "text_dtype": "f16", "sharded": True},
}


def tokenizers(folder, layout_of, second):
    pads = {"tokenizer": vocabulary.END} | ({"tokenizer_2": "!"} if second else {})
    write = vocabulary.write_single if layout_of.get("tokenizer_json") else vocabulary.write
    for name, pad in pads.items():
        write(folder / name, pad)


def text_encoder(config, projected, generator, tokenizer):
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    model = kind(transformers.CLIPTextConfig(**config)).eval()
    alive.draw(model, generator)
    ids = tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True,
                    return_tensors="pt").input_ids
    run = lambda: model(ids, output_hidden_states=True)  # noqa: E731
    alive.settle(model, run)
    return model, run


def conditions(config, contexts, pooled, generator):
    """Typical calls of the UNet: all noise levels, some prompts."""
    calls = []
    for timestep in (999, 749, 499, 249, 20):
        count = len(contexts)
        call = {"sample": torch.randn((count, 4, 8, 8), generator=generator),
                "timestep": timestep, "encoder_hidden_states": contexts}
        if config.get("time_cond_proj_dim"):
            call["timestep_cond"] = torch.randn((count, config["time_cond_proj_dim"]),
                                                generator=generator)
        if config.get("addition_embed_type"):
            ids = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]] * count)
            call["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": ids}
        calls.append(call)
    return calls


def unet(config, contexts, pooled, generator):
    model = UNet2DConditionModel(**config).eval()
    alive.draw(model, generator)
    calls = conditions(config, contexts, pooled, generator)
    joined = {**calls[0], "timestep": 600}
    alive.settle(model, lambda: model(**joined))
    alive.aim(model, calls, generator)
    return model, lambda: [model(**call) for call in calls]


def autoencoder(family, generator):
    small = "tiny_vae" in family
    model = (AutoencoderTiny(**family["tiny_vae"]) if small else AutoencoderKL(**family["vae"])).eval()
    alive.draw(model, generator)
    latents = torch.randn((2, 4, 8, 8), generator=generator)
    pictures = torch.rand((2, 3, 64, 64), generator=generator) * 2 - 1
    scaled = latents if small else latents / family["vae"]["scaling_factor"]

    def run():
        model.encode(pictures)
        model.decode(scaled)

    wishes = {"decoder.conv_out": 0.55, "to_out.0": 1.0}
    if small:
        last = len(model.decoder.layers) - 1
        # This decoder answers in 0..1.
        model.decoder.layers[last].bias.data += 0.5
        wishes = {"decoder.layers.0": 1.5, f"decoder.layers.{last}": 0.12}
    alive.settle(model, run, wishes)
    return model, run


def dtype_of(model, layout_of):
    text = not isinstance(model, diffusers.ModelMixin)
    return layout_of.get("text_dtype", layout_of["dtype"]) if text else layout_of["dtype"]


def write_component(folder, model, layout_of):
    diffuser = isinstance(model, diffusers.ModelMixin)
    stem = "diffusion_pytorch_model" if diffuser else "model"
    if diffuser:
        model.save_config(folder)
    else:
        model.config.save_pretrained(folder)
    tensors = {name: tensor.detach().to(layout.DTYPES[dtype_of(model, layout_of)]).contiguous()
               for name, tensor in model.state_dict().items()}
    if not diffuser:
        tensors = text_names(tensors, layout_of)
    elif isinstance(model, AutoencoderKL) and layout_of.get("old_names"):
        tensors = {layout.old_attention(name): t for name, t in tensors.items()}
    if isinstance(model, UNet2DConditionModel) and layout_of.get("sharded"):
        layout.write_sharded(folder, stem, tensors)
    else:
        layout.write(folder, stem, tensors, layout_of.get("variant"))


def text_names(tensors, layout_of):
    bare = {name.removeprefix("text_model."): t for name, t in tensors.items()}
    if layout_of.get("bare_text"):
        return bare
    named = {name if name.startswith("text_projection") else f"text_model.{name}": t
             for name, t in bare.items()}
    if layout_of.get("old_names"):
        named["text_model.embeddings.position_ids"] = torch.arange(77).reshape(1, 77)
    return named


def index(folder, family, parts):
    entries = {"_class_name": family["pipeline"], "_diffusers_version": diffusers.__version__,
               "feature_extractor": [None, None], **family.get("more", {})}
    for name, part in parts.items():
        library = type(part).__module__.split(".")[0]
        entries[name] = [library, type(part).__name__]
    tokenizer_names = ["tokenizer"] + (["tokenizer_2"] if "text_encoder_2" in parts else [])
    entries |= {name: ["transformers", "CLIPTokenizer"] for name in tokenizer_names}
    if "text_encoder_2" in parts:
        entries["image_encoder"] = [None, None]
    else:
        entries |= {"safety_checker": [None, None], "requires_safety_checker": False}
    path = folder / "model_index.json"
    path.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n")


def make(name):
    family, layout_of = FAMILIES[name], LAYOUTS[name]
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    second = "text_encoder_2" in family
    tokenizers(folder, layout_of, second)
    parts, runs, outputs = {}, {}, []
    for key in ["text_encoder"] + ["text_encoder_2"] * second:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / key.replace("text_encoder", "tokenizer"))
        parts[key], runs[key] = text_encoder(family[key], key == "text_encoder_2", generator, tokenizer)
        layout.rounded(parts[key], dtype_of(parts[key], layout_of))
        with torch.no_grad():
            outputs.append(runs[key]())
    contexts = torch.cat([o.hidden_states[-2] for o in outputs], -1) if second \
        else outputs[0].last_hidden_state
    pooled = outputs[1].text_embeds if second else None
    parts["unet"], runs["unet"] = unet(family["unet"], contexts, pooled, generator)
    parts["vae"], runs["vae"] = autoencoder(family, generator)
    for key, part in parts.items():
        layout.rounded(part, dtype_of(part, layout_of))
        alive.check(part, runs[key], f"{name}/{key}")
        write_component(folder / key, part, layout_of)
    kind, config = family["scheduler"]
    parts["scheduler"] = getattr(diffusers, kind)(**config)
    parts["scheduler"].save_config(folder / "scheduler")
    index(folder, family, parts)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{name}: {size / 1e6:.2f} MB")


def main():
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    for name in sys.argv[1:] or FAMILIES:
        make(name)


if __name__ == "__main__":
    main()
