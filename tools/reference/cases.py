"""The golden pictures: what is asked of each tiny pipeline.

A case is a row of fields that differ from `BASE`. `scheduler` is a class name with fields that
are put over the pipeline's own `scheduler_config.json`.
"""

CAT = "a photo of a cat"
ROBOT = "a robot reading a newspaper in the rain, neon lights"
LONG = ", ".join(f"detail number {i} of a painting" for i in range(30))
BAD = "blurry, low quality, watermark"
HAN, CYRILLIC, ARABIC, EMOJI = "一只猫坐在垫子上", "кошка в сапогах", "قطة صغيرة", "🐱 cafe\u0301 naïve ½"

BASE = {"prompt": CAT, "negative": None, "seed": 42, "steps": 1, "cfg": 0.0, "width": 64,
        "height": 64, "batch": 1, "scheduler": None, "lora": [], "clip_skip": None}

KARRAS = {"use_karras_sigmas": True}
V = {"prediction_type": "v_prediction"}


def by(kind, **fields):
    return {"_class_name": kind, **fields}


EULER, ANCESTRAL = "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"
HEUN, LCM, TCD = "HeunDiscreteScheduler", "LCMScheduler", "TCDScheduler"
DDIM, PNDM = "DDIMScheduler", "PNDMScheduler"
DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"

SDXL = {
    "turbo-1": {},
    "turbo-1-robot": {"prompt": ROBOT},
    "turbo-4": {"steps": 4, "seed": 7},
    "turbo-20": {"steps": 20, "seed": 8},
    "batch-2": {"batch": 2, "seed": 100},
    "batch-2-4": {"batch": 2, "seed": 4294967295, "steps": 4},
    "wide": {"width": 104, "height": 72},
    "tall-4": {"width": 40, "height": 136, "steps": 4},
    "empty": {"prompt": ""},
    "empty-negative": {"cfg": 5.0, "negative": "", "steps": 4},
    "han": {"prompt": HAN},
    "long": {"prompt": LONG},
    "cfg-4": {"cfg": 5.0, "steps": 4},
    "cfg-negative-4": {"cfg": 5.0, "steps": 4, "negative": BAD},
    "cfg-empty-20": {"cfg": 7.5, "steps": 20, "prompt": ""},
    "cfg-below-one": {"cfg": 0.5, "negative": BAD},
    "clip-skip-1": {"clip_skip": 1},
    "clip-skip-1-cfg": {"clip_skip": 1, "cfg": 3.0, "steps": 4, "negative": BAD},
    "euler-leading-20": {"scheduler": by(EULER, timestep_spacing="leading"), "steps": 20, "cfg": 5.0},
    "euler-karras-4": {"scheduler": by(EULER, timestep_spacing="linspace", **KARRAS), "steps": 4},
    "heun-4": {"scheduler": by(HEUN), "steps": 4, "cfg": 5.0},
    "lcm-4": {"scheduler": by(LCM), "steps": 4},
    "tcd-4": {"scheduler": by(TCD), "steps": 4},
    "ddim-4": {"scheduler": by(DDIM, clip_sample=False), "steps": 4},
    "dpm-karras-20": {"scheduler": by(DPM, timestep_spacing="leading", **KARRAS), "steps": 20,
                      "cfg": 5.0, "negative": BAD},
    "unipc-4": {"scheduler": by(UNIPC), "steps": 4},
    "lora-4": {"lora": [["tiny-sdxl-diffusers.safetensors", 0.8]], "steps": 4},
    "lora-kohya-4": {"lora": [["tiny-sdxl-kohya.safetensors", 0.8]], "steps": 4},
}

TURBO = {
    "turbo-1": {},
    "turbo-4": {"steps": 4},
    "turbo-20": {"steps": 20},
    "robot-4": {"prompt": ROBOT, "steps": 4, "seed": 3},
    "batch-2": {"batch": 2, "steps": 4},
    "wide": {"width": 136, "height": 40},
    "odd-4": {"width": 72, "height": 88, "steps": 4},
    "cyrillic": {"prompt": CYRILLIC},
    "cfg-4": {"cfg": 3.0, "steps": 4, "negative": BAD},
    "clip-skip-1": {"clip_skip": 1, "steps": 4},
    "ancestral-4": {"scheduler": by(ANCESTRAL), "steps": 4},
    "ancestral-v-20": {"scheduler": by(ANCESTRAL, **V), "steps": 20},
    "euler-v-4": {"scheduler": by(EULER, **V), "steps": 4},
    "euler-zero-snr-4": {"scheduler": by(EULER, rescale_betas_zero_snr=True, **V), "steps": 4},
    "heun-1": {"scheduler": by(HEUN), "steps": 1},
    "heun-20": {"scheduler": by(HEUN, **KARRAS), "steps": 20},
    "ddim-v-20": {"scheduler": by(DDIM, clip_sample=False, timestep_spacing="leading", **V),
                  "steps": 20, "cfg": 5.0},
    "ddim-1": {"scheduler": by(DDIM, clip_sample=False), "steps": 1},
    "tcd-1": {"scheduler": by(TCD)},
    "tcd-20": {"scheduler": by(TCD), "steps": 20},
    "unipc-1": {"scheduler": by(UNIPC), "steps": 1},
    "unipc-karras-20": {"scheduler": by(UNIPC, **KARRAS), "steps": 20},
}

SD15 = {
    "pndm-20": {"steps": 20, "cfg": 7.5},
    "pndm-4": {"steps": 4, "cfg": 7.5, "negative": BAD},
    "pndm-1": {"cfg": 7.5},
    "no-guidance-4": {"steps": 4, "cfg": 1.0},
    "batch-2-20": {"steps": 20, "batch": 2, "cfg": 7.5},
    "odd-4": {"width": 104, "height": 72, "steps": 4, "cfg": 7.5},
    "empty-20": {"prompt": "", "steps": 20, "cfg": 7.5},
    "arabic-4": {"prompt": ARABIC, "steps": 4, "cfg": 4.0},
    "long-4": {"prompt": LONG, "negative": LONG, "steps": 4, "cfg": 4.0},
    "clip-skip-1-4": {"clip_skip": 1, "steps": 4, "cfg": 7.5},
    "dpm-20": {"scheduler": by(DPM), "steps": 20, "cfg": 7.5},
    "dpm-karras-4": {"scheduler": by(DPM, **KARRAS), "steps": 4, "cfg": 7.5},
    "dpm-1": {"scheduler": by(DPM), "steps": 1, "cfg": 7.5},
    "dpm-sde-4": {"scheduler": by(DPM, algorithm_type="sde-dpmsolver++"), "steps": 4, "cfg": 4.0},
    "unipc-20": {"scheduler": by(UNIPC), "steps": 20, "cfg": 7.5},
    "euler-20": {"scheduler": by(EULER, timestep_spacing="leading"), "steps": 20, "cfg": 7.5},
    "ancestral-20": {"scheduler": by(ANCESTRAL), "steps": 20, "cfg": 7.5},
    "heun-4": {"scheduler": by(HEUN), "steps": 4, "cfg": 7.5},
    "ddim-20": {"scheduler": by(DDIM, clip_sample=False, set_alpha_to_one=False), "steps": 20,
                "cfg": 7.5},
    "pndm-prk-20": {"scheduler": by(PNDM, skip_prk_steps=False, steps_offset=0), "steps": 20,
                    "cfg": 4.0},
    "lora-20": {"lora": [["tiny-sd15-diffusers.safetensors", 1.0]], "steps": 20, "cfg": 4.0},
    "lora-kohya-20": {"lora": [["tiny-sd15-kohya.safetensors", 1.0]], "steps": 20, "cfg": 4.0},
}

CONSISTENCY = {
    "lcm-4": {"steps": 4, "cfg": 8.5},
    "lcm-1": {"cfg": 8.5},
    "lcm-20": {"steps": 20, "cfg": 8.5},
    "lcm-4-low": {"steps": 4, "cfg": 1.0},
    "robot-4": {"prompt": ROBOT, "steps": 4, "cfg": 3.0},
    "batch-2": {"steps": 4, "batch": 2, "cfg": 8.5},
    "odd": {"width": 72, "height": 104, "steps": 4, "cfg": 8.5},
    "emoji": {"prompt": EMOJI, "steps": 4, "cfg": 8.5},
    "clip-skip-1": {"clip_skip": 1, "steps": 4, "cfg": 8.5},
}

NOMID = {
    "dpm-20": {"steps": 20, "cfg": 7.5},
    "dpm-4": {"steps": 4, "cfg": 7.5, "negative": BAD},
    "dpm-1": {"cfg": 7.5},
    "no-guidance-4": {"steps": 4},
    "robot-4": {"prompt": ROBOT, "steps": 4, "cfg": 7.5},
    "batch-2": {"batch": 2, "steps": 4, "cfg": 7.5},
    "odd-4": {"width": 104, "height": 72, "steps": 4, "cfg": 7.5},
    "euler-20": {"scheduler": by(EULER, timestep_spacing="trailing"), "steps": 20, "cfg": 7.5},
    "lcm-4": {"scheduler": by(LCM), "steps": 4},
    "clip-skip-1": {"clip_skip": 1, "steps": 4, "cfg": 7.5},
}

SINGLE = {
    "tiny-sd1": {
        "pndm-4": {"steps": 4, "cfg": 7.5},
        "pndm-20": {"steps": 20, "cfg": 7.5, "negative": BAD, "prompt": ROBOT},
        "arabic": {"prompt": ARABIC, "steps": 4, "cfg": 4.0, "width": 104, "height": 72},
        "clip-skip-1": {"steps": 4, "cfg": 7.5, "clip_skip": 1},
    },
    "tiny-sd2": {
        "ddim-4": {"steps": 4, "cfg": 7.5},
        "ddim-20": {"steps": 20, "cfg": 7.5, "negative": BAD, "prompt": ROBOT},
        "emoji": {"prompt": EMOJI, "steps": 4, "cfg": 4.0, "width": 72, "height": 104},
    },
    "tiny-sdxl": {
        "euler-4": {"steps": 4, "cfg": 5.0},
        "euler-20": {"steps": 20, "cfg": 5.0, "negative": BAD, "prompt": ROBOT},
        "han": {"prompt": HAN, "steps": 4, "cfg": 5.0, "width": 72, "height": 104},
        "long": {"prompt": LONG, "steps": 4, "cfg": 5.0},
    },
}

# Of the model that comes with the program, in its own words.
APPLE = "a red apple on a blue background"
POCKET = {
    "apple-1": {"prompt": APPLE},
    "apple-4": {"prompt": APPLE, "steps": 4, "seed": 7},
    "pair-1": {"prompt": "a fox next to a mushroom on a yellow background, flat style", "seed": 3},
    "pair-4": {"prompt": "an owl above a strawberry on a white background, 3d style", "seed": 4, "steps": 4},
    "open-1": {"prompt": "a cat", "batch": 2, "seed": 100},
    "cfg-4": {"prompt": "a large lion on a green background", "cfg": 2.0, "steps": 4},
}

CASES = {"pocket-turbo": POCKET, "tiny-sdxl-turbo": SDXL, "tiny-sd-turbo": TURBO, "tiny-sd15": SD15, "tiny-lcm": CONSISTENCY,
         "tiny-nomid": NOMID}

# What has to move a pipeline's picture: changes to the case named first.
MOVES = {
    "pocket-turbo": ("cfg-4", {"prediction_type": "epsilon"}),
    "tiny-sdxl-turbo": ("cfg-4", {"timestep_spacing": "leading"}),
    "tiny-sd-turbo": ("cfg-4", {"timestep_spacing": "linspace"}),
    "tiny-sd15": ("pndm-20", {"timestep_spacing": "trailing"}),
    "tiny-lcm": ("lcm-4", {"beta_schedule": "linear"}),
    "tiny-nomid": ("dpm-4", {"use_karras_sigmas": False}),
}
