"""Configurations of the tiny pipelines: every family's options at the smallest useful size."""

import vocabulary

TRAINED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
           "num_train_timesteps": 1000}


def text(hidden, heads, layers, act, **more):
    return {"vocab_size": vocabulary.SIZE, "hidden_size": hidden, "intermediate_size": 2 * hidden,
            "num_attention_heads": heads, "num_hidden_layers": layers, "hidden_act": act,
            "max_position_embeddings": 77, "projection_dim": hidden, "bos_token_id": 0,
            "pad_token_id": 1, "eos_token_id": 2, **more}


def unet(channels, down, **more):
    """`down` has one letter per level: `c` with cross-attention, `d` without."""
    names = {"c": "CrossAttn", "d": ""}
    return {"sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": channels,
            "down_block_types": tuple(f"{names[k]}DownBlock2D" for k in down),
            "up_block_types": tuple(f"{names[k]}UpBlock2D" for k in reversed(down)), **more}


def vae(channels, groups, **more):
    return {"block_out_channels": channels, "norm_num_groups": groups, "layers_per_block": 1,
            "down_block_types": ("DownEncoderBlock2D",) * len(channels), "latent_channels": 4,
            "up_block_types": ("UpDecoderBlock2D",) * len(channels), "sample_size": 64,
            "scaling_factor": 0.18215, **more}


FAMILIES = {
    # Two text encoders, text_time embedding, blocks of several depths, linear projections.
    "tiny-sdxl-turbo": {
        "pipeline": "StableDiffusionXLPipeline",
        "text_encoder": text(32, 4, 3, "quick_gelu", eos_token_id=vocabulary.SIZE - 1,
                             bos_token_id=vocabulary.SIZE - 2),
        "text_encoder_2": text(40, 5, 3, "gelu", projection_dim=48),
        "unet": unet((16, 16, 24), "dcc", layers_per_block=1, norm_num_groups=8,
                     cross_attention_dim=72, attention_head_dim=[2, 2, 3],
                     transformer_layers_per_block=[1, 1, 2], use_linear_projection=True,
                     addition_embed_type="text_time", addition_time_embed_dim=8,
                     projection_class_embeddings_input_dim=6 * 8 + 48),
        "vae": vae((8, 8, 8, 24), 8, scaling_factor=0.13025),
        "scheduler": ("EulerAncestralDiscreteScheduler",
                      {**TRAINED, "timestep_spacing": "trailing", "steps_offset": 1}),
        "more": {"force_zeros_for_empty_prompt": True},
    },
    # One OpenCLIP-like encoder, linear projections, heads as a list.
    "tiny-sd-turbo": {
        "pipeline": "StableDiffusionPipeline",
        "text_encoder": text(32, 4, 3, "gelu", eos_token_id=vocabulary.SIZE - 1),
        "unet": unet((16, 24), "cd", layers_per_block=2, norm_num_groups=8,
                     cross_attention_dim=32, attention_head_dim=[2, 3],
                     use_linear_projection=True),
        "vae": vae((8, 8, 8, 16), 8),
        "scheduler": ("EulerDiscreteScheduler",
                      {**TRAINED, "timestep_spacing": "trailing", "steps_offset": 1}),
    },
    # Convolutional projections, eight heads everywhere.
    "tiny-sd15": {
        "pipeline": "StableDiffusionPipeline",
        "text_encoder": text(32, 4, 2, "quick_gelu"),
        "unet": unet((16, 32), "cd", layers_per_block=1, norm_num_groups=16,
                     cross_attention_dim=32, attention_head_dim=8),
        "vae": vae((8, 8, 16, 16), 4),
        "scheduler": ("PNDMScheduler", {**TRAINED, "steps_offset": 1, "skip_prk_steps": True,
                                        "set_alpha_to_one": False}),
    },
    # The guidance scale goes into the time embedding.
    "tiny-lcm": {
        "pipeline": "LatentConsistencyModelPipeline",
        "text_encoder": text(32, 4, 2, "quick_gelu", bos_token_id=vocabulary.SIZE - 2,
                             eos_token_id=vocabulary.SIZE - 1),
        "unet": unet((16, 24), "cc", layers_per_block=1, norm_num_groups=8,
                     cross_attention_dim=32, attention_head_dim=8, time_cond_proj_dim=32),
        "vae": vae((8, 8, 8, 16), 8),
        "scheduler": ("LCMScheduler", {**TRAINED, "original_inference_steps": 50,
                                       "steps_offset": 1, "set_alpha_to_one": True}),
    },
    # No middle block, uneven blocks, the small autoencoder.
    "tiny-nomid": {
        "pipeline": "StableDiffusionPipeline",
        "text_encoder": text(32, 2, 2, "quick_gelu"),
        "unet": unet((8, 16, 24), "dcc", layers_per_block=[1, 2, 1], norm_num_groups=8,
                     cross_attention_dim=32, attention_head_dim=[2, 4, 3], mid_block_type=None,
                     transformer_layers_per_block=[1, [2, 1], [1]],
                     reverse_transformer_layers_per_block=[[1, 2], [1, 1, 2], 1]),
        "tiny_vae": {"encoder_block_out_channels": (12,) * 4, "num_encoder_blocks": (1, 1, 2, 1),
                     "decoder_block_out_channels": (12,) * 4, "num_decoder_blocks": (1, 2, 1, 1),
                     "latent_channels": 4},
        "scheduler": ("DPMSolverMultistepScheduler",
                      {**TRAINED, "steps_offset": 1, "use_karras_sigmas": True}),
    },
}


def wide_text(layers, act, **more):
    """Eight numbers for each of CLIP's 49408 tokens."""
    return text(8, 1, layers, act, **{"vocab_size": 49408, "bos_token_id": 49406,
                                      "eos_token_id": 49407, **more})


SINGLE_VAE = ((8, 8, 8, 16), 8)

# One file in the original layout each. Options that such a file cannot state are the family's.
SINGLE = {
    "tiny-sd1": {
        "pipeline": "StableDiffusionPipeline",
        "text_encoder": wide_text(2, "quick_gelu"),
        "unet": unet((16, 24), "cd", layers_per_block=1, norm_num_groups=8,
                     cross_attention_dim=8, attention_head_dim=8),
        "vae": vae(*SINGLE_VAE),
        "scheduler": ("PNDMScheduler", {**TRAINED, "steps_offset": 1, "skip_prk_steps": True,
                                        "set_alpha_to_one": False}),
    },
    "tiny-sd2": {
        "pipeline": "StableDiffusionPipeline",
        # The file has one layer more than is used.
        "text_encoder": wide_text(3, "gelu"),
        "unused_text_layers": 1,
        "unet": unet((8, 16), "cd", layers_per_block=2, norm_num_groups=8,
                     cross_attention_dim=8, attention_head_dim=[1, 2], use_linear_projection=True),
        "vae": vae(*SINGLE_VAE),
        "scheduler": ("DDIMScheduler", {**TRAINED, "steps_offset": 1, "clip_sample": False,
                                        "set_alpha_to_one": False,
                                        "prediction_type": "v_prediction"}),
    },
    "tiny-sdxl": {
        "pipeline": "StableDiffusionXLPipeline",
        "text_encoder": wide_text(2, "quick_gelu"),
        "text_encoder_2": wide_text(2, "gelu", projection_dim=16),
        "unet": unet((8, 16, 16), "dcc", layers_per_block=1, norm_num_groups=8,
                     cross_attention_dim=16, attention_head_dim=[1, 1, 1],
                     transformer_layers_per_block=[1, 1, 2], use_linear_projection=True,
                     addition_embed_type="text_time", addition_time_embed_dim=8,
                     projection_class_embeddings_input_dim=6 * 8 + 16),
        "vae": vae(*SINGLE_VAE, scaling_factor=0.13025),
        "scheduler": ("EulerDiscreteScheduler", {**TRAINED, "steps_offset": 1,
                                                 "timestep_spacing": "leading"}),
        "more": {"force_zeros_for_empty_prompt": True},
    },
}
