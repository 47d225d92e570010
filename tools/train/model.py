"""The networks of the pipeline, as the settings size them, and how they are called in training and in evaluation."""

import torch
from diffusers import EulerAncestralDiscreteScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import clip
import device

NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
         "prediction_type": "v_prediction", "timestep_spacing": "trailing", "steps_offset": 1}


def scheduler():
    # It counts with NumPy, which sees the processor's memory alone.
    with torch.device("cpu"):
        return EulerAncestralDiscreteScheduler(**NOISE)


def build_unet(s):
    u = s.unet
    depth = len(u.channels)
    return UNet2DConditionModel(
        sample_size=s.picture // 2 ** (len(s.vae.decoder_blocks) - 1),
        in_channels=s.vae.latent_channels, out_channels=s.vae.latent_channels,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (depth - 1),
        up_block_types=("CrossAttnUpBlock2D",) * depth,
        block_out_channels=tuple(u.channels), layers_per_block=u.layers_per_block,
        transformer_layers_per_block=list(u.transformers), attention_head_dim=[c // u.head for c in u.channels],
        cross_attention_dim=u.text_width + s.clip.text_width, use_linear_projection=True, norm_num_groups=16,
        addition_embed_type="text_time", addition_time_embed_dim=u.time_ids,
        projection_class_embeddings_input_dim=6 * u.time_ids + s.clip.projection)


def build_text(s, vocabulary):
    config = clip.text_config(s, s.unet.text_width, s.unet.text_layers, vocabulary)
    return CLIPTextModel(CLIPTextConfig(**{**config, "intermediate_size": s.unet.text_hidden}))


def text_tower(s, two_towers):
    """The text half of the CLIP, as the second encoder."""
    config = CLIPTextConfig(**{**two_towers.config.text_config.to_dict(), "projection_dim": s.clip.projection})
    tower = CLIPTextModelWithProjection(config)
    theirs = two_towers.state_dict()
    tower.load_state_dict({name: theirs[name] for name in tower.state_dict()})
    return tower.eval().requires_grad_(False)


class Drawer(torch.nn.Module):
    """The UNet and the first text encoder."""

    def __init__(self, s, vocabulary):
        super().__init__()
        self.unet, self.text = build_unet(s), build_text(s, vocabulary)
        # A few tokens of a few channels: plain products are faster than fused attention.
        self.unet.set_attn_processor(AttnProcessor())
        side = s.picture
        self.ids = torch.tensor([side, side, 0, 0, side, side], dtype=torch.float32)

    def context(self, tower, ids):
        """What SDXL's pipeline makes of a prompt: both encoders' last states but one, and the second's summary."""
        first = self.text(ids, output_hidden_states=True).hidden_states[-2]
        with torch.no_grad():
            second = tower(ids, output_hidden_states=True)
        return torch.cat([first, second.hidden_states[-2].to(first.dtype)], -1), second.text_embeds

    def forward(self, x, time, context, pooled):
        ids = self.ids.to(x.device).expand(len(x), 6)
        added = {"text_embeds": pooled, "time_ids": ids}
        return self.unet(x, time, context, added_cond_kwargs=added, return_dict=False)[0]


@torch.no_grad()
def draw(drawer, tower, ids, steps, seeds):
    """Latents by the pipeline's own scheduler, with one generator per picture."""
    sampler = scheduler()
    sampler.set_timesteps(steps)
    side, channels = drawer.unet.config.sample_size, drawer.unet.config.in_channels
    generators = [device.generator(int(seed)) for seed in seeds]
    x = torch.cat([device.normal(1, channels, side, side, by=g) for g in generators]) * sampler.init_noise_sigma
    context, pooled = drawer.context(tower, ids)
    for time in sampler.timesteps:
        v = drawer(sampler.scale_model_input(x, time), time, context, pooled)
        x = sampler.step(v, time, x, generator=generators).prev_sample
    return x
