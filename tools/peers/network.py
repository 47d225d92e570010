"""The two networks that are timed, as functions of tensors in a fixed order."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

UNET = ("sample", "timestep", "encoder_hidden_states", "text_embeds", "time_ids")


class Step(torch.nn.Module):
    """One UNet step: the noise prediction."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, context, pooled=None, ids=None):
        extra = None if pooled is None else {"text_embeds": pooled, "time_ids": ids}
        return self.unet(sample, timestep, context, added_cond_kwargs=extra, return_dict=False)[0]


class Decode(torch.nn.Module):
    """One VAE decoding, of latents that are divided by the scale already."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latents):
        return self.vae.decode(latents, return_dict=False)[0]


def load(component, folder, dtype):
    """The network of a diffusers folder with weights in `dtype`."""
    import diffusers

    kinds = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
    model = kinds[component].from_pretrained(folder, subfolder=component, dtype=dtype).eval()
    return (Step if component == "unet" else Decode)(model)


def random_inputs(component, folder, size, path):
    """Seeded inputs of the folder's shapes for pictures of `size` pixels."""
    import diffusers

    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    latents = normal(1, 4, size // 8, size // 8)
    if component == "vae":
        config = diffusers.AutoencoderKL.load_config(folder, subfolder="vae")
        save_file({"latents": latents / config["scaling_factor"]}, path)
        return
    config = diffusers.UNet2DConditionModel.load_config(folder, subfolder="unet")
    # OpenVINO rounds the angles of the time embedding to bf16 where it computes in bf16: at 999 they
    # are wrong by radians, and its output agrees with nobody's to more than 23 dB. What is timed
    # does not depend on the number.
    tensors = {"sample": latents, "timestep": torch.tensor([1.0]),
               "encoder_hidden_states": normal(1, 77, config["cross_attention_dim"])}
    if config.get("addition_embed_type") == "text_time":
        ids = 6 * config["addition_time_embed_dim"]
        tensors["text_embeds"] = normal(1, config["projection_class_embeddings_input_dim"] - ids)
        tensors["time_ids"] = torch.tensor([[size, size, 0, 0, size, size]], dtype=torch.float32)
    save_file(tensors, path)


def inputs(component, path):
    tensors = load_file(path)
    return [tensors[name].float() for name in (UNET if component == "unet" else ("latents",))
            if name in tensors]


def output(path):
    with safe_open(Path(path), "pt") as file:
        return file.get_tensor("output").double()


def sqnr(reference, other):
    """`10 log10(Σ ref² / Σ (x − ref)²)`, in dB."""
    noise = (other - reference).square().sum()
    return float("inf") if noise == 0 else (10 * torch.log10(reference.square().sum() / noise)).item()
