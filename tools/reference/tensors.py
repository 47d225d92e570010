"""Writes `testdata/golden/tensors`: what every stage of the tiny pipelines computes.

    tools/.venv/bin/python tools/reference/tensors.py [NAME ...]

One safetensors file per pipeline, f32, in PyTorch's order (NCHW, or batch, tokens, channels).
The UNet runs once at latents of 9×7 (so that levels have odd sizes) on seeded noise; the inputs are
in the file, as are the outputs of all blocks and, for the families in `DEEP`, of all layers.
"""

import sys

import torch
from safetensors.torch import save_file

import golden

DEEP = {"tiny-sdxl-turbo": "", "tiny-nomid": "up_blocks.1"}
BLOCKS = ("conv_in", "time_embedding", "add_embedding", "mid_block", "conv_out")
PROMPTS = {"": "a photo of a cat", "negative_": "blurry, low quality, watermark"}


def keep(found, name, output):
    """Files away one output; of a tuple the first, which is the hidden state."""
    output = output[0] if isinstance(output, tuple) else output
    output = getattr(output, "sample", output)
    if isinstance(output, torch.Tensor):
        found[name] = output.detach().float().clone().contiguous()


def watch(module, prefix, wanted, found):
    """Hooks that note the outputs of the wanted submodules."""
    def hook(name):
        return lambda _m, _i, output: keep(found, f"{prefix}.{name}", output)
    return [m.register_forward_hook(hook(n)) for n, m in module.named_modules() if n and wanted(n)]


def run_watched(module, prefix, wanted, call):
    found = {}
    hooks = watch(module, prefix, wanted, found)
    keep(found, f"{prefix}.output", call())
    for handle in hooks:
        handle.remove()
    return found


def is_block(name):
    parts = name.split(".")
    return name in BLOCKS or (len(parts) == 2 and parts[0] in ("down_blocks", "up_blocks"))


def is_layer(name):
    """Sub-blocks: resnets, transformers and their parts, samplers."""
    parts = name.split(".")
    return (parts[-1].isdigit() and parts[-2] not in ("net", "to_out")) or \
        parts[-1] in ("attn1", "attn2", "ff", "conv_shortcut")


def texts(pipe):
    """Token ids and embeddings as the pipeline hands them to the UNet."""
    found = {}
    second = hasattr(pipe, "text_encoder_2")
    for prefix, prompt in PROMPTS.items():
        for tokenizer in ["tokenizer"] + ["tokenizer_2"] * second:
            ids = getattr(pipe, tokenizer)(prompt, padding="max_length", max_length=77,
                                           truncation=True, return_tensors="pt").input_ids
            found[f"text.{prefix}{tokenizer}.ids"] = ids.to(torch.int32)
        answer = pipe.encode_prompt(prompt, device="cpu", num_images_per_prompt=1,
                                    do_classifier_free_guidance=False)
        found[f"text.{prefix}embeddings"] = answer[0].clone()
        if second:
            found[f"text.{prefix}pooled"] = answer[2].clone()
    return found


def text_layers(pipe):
    """The last layers of the text encoders on the first prompt."""
    found = {}
    for suffix in ("", "_2") if hasattr(pipe, "text_encoder_2") else ("",):
        ids = getattr(pipe, "tokenizer" + suffix)(
            PROMPTS[""], padding="max_length", max_length=77, truncation=True,
            return_tensors="pt").input_ids
        answer = getattr(pipe, "text_encoder" + suffix)(ids, output_hidden_states=True)
        for index, state in list(enumerate(answer.hidden_states))[-2:]:
            found[f"text_encoder{suffix}.hidden_states.{index}"] = state.clone()
        found[f"text_encoder{suffix}.last_hidden_state"] = answer.last_hidden_state.clone()
    return found


def unet(pipe, name, embeddings):
    generator = torch.Generator().manual_seed(5)
    config = pipe.unet.config
    sample = torch.randn((1, 4, 9, 7), generator=generator)
    call = {"sample": sample, "timestep": torch.tensor([651.0]),
            "encoder_hidden_states": embeddings["text.embeddings"]}
    found = {"unet.sample": sample, "unet.timestep": call["timestep"],
             "unet.encoder_hidden_states": call["encoder_hidden_states"].clone()}
    if config.time_cond_proj_dim:
        call["timestep_cond"] = pipe.get_guidance_scale_embedding(
            torch.tensor([7.5]), embedding_dim=config.time_cond_proj_dim)
        found["unet.timestep_cond"] = call["timestep_cond"].clone()
    if config.addition_embed_type:
        extra = {"text_embeds": embeddings["text.pooled"],
                 "time_ids": torch.tensor([[72.0, 56.0, 0.0, 0.0, 72.0, 56.0]])}
        call["added_cond_kwargs"] = extra
        found |= {f"unet.{key}": value.clone() for key, value in extra.items()}
    deep = DEEP.get(name)

    def wanted(layer):
        return is_block(layer) or (deep is not None and layer.startswith(deep) and is_layer(layer))

    return found | run_watched(pipe.unet, "unet", wanted, lambda: pipe.unet(**call))


def autoencoder(pipe):
    generator = torch.Generator().manual_seed(6)
    tiny = "Tiny" in type(pipe.vae).__name__
    latents = torch.randn((1, 4, 4, 3), generator=generator)
    scaled = latents / pipe.vae.config.scaling_factor
    picture = torch.rand((1, 3, 24, 16), generator=generator) * 2 - 1
    found = {"vae.latents": scaled, "vae.picture": picture}

    def wanted(name):
        parts = name.split(".")
        if tiny:
            return len(parts) == 3 and parts[1] == "layers"
        return name in ("post_quant_conv", "quant_conv") or (
            len(parts) == 2 and parts[1] in ("conv_in", "mid_block", "conv_norm_out", "conv_out")) or (
            len(parts) == 3 and parts[1].endswith("_blocks"))

    found |= run_watched(pipe.vae, "vae", wanted, lambda: pipe.vae.decode(scaled))
    found["vae.decoded"] = found.pop("vae.output")

    def encode():
        answer = pipe.vae.encode(picture)
        return answer.latents if tiny else answer.latent_dist.mean

    found |= run_watched(pipe.vae, "vae", wanted, encode)
    found["vae.encoded"] = found.pop("vae.output")
    return found


def drawing(pipe, cfg):
    """The latents that the pipeline starts with and ends with: 4 steps, seed 42, 64×64."""
    steps = []

    def note(_pipe, _index, _timestep, values):
        steps.append(values["latents"].clone())
        return values

    generator = torch.Generator().manual_seed(42)
    start = torch.randn((1, 4, 8, 8), generator=generator)
    pipe(PROMPTS[""], num_inference_steps=4, guidance_scale=cfg, output_type="latent",
         generator=torch.Generator().manual_seed(42), callback_on_step_end=note)
    found = {"drawing.noise": start}
    return found | {f"drawing.latents.{i + 1}": latents for i, latents in enumerate(steps)}


def make(name):
    pipe = golden.pipeline_at(golden.DATA / "pipelines" / name)
    found = texts(pipe)
    found |= text_layers(pipe) | unet(pipe, name, found) | autoencoder(pipe)
    found |= drawing(pipe, 0.0 if "turbo" in name else 4.0)
    folder = golden.OUT / "tensors"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in found.items()}, path)
    print(f"{path.name}: {len(found)} tensors, {path.stat().st_size / 1e6:.2f} MB")


def main():
    golden.quiet()
    for name in sys.argv[1:] or golden.cases.CASES:
        make(name)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
