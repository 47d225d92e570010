"""Makes checkpoints of exported models, to train them further where the work folder is gone.

    tools/train/restore [--source models]

`data` and `basis` make the same files again and come first. The vocabulary is the exported one: `tokenizer` would
learn another one wherever the sentences have changed since. Optimizers start anew, and what `text` would need to go on
is not exported. Checkpoints that exist are left alone. A decoder that is smaller than the settings have it is put into
one of their size (`growth`).
"""

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTextModel

import checkpoint
import clip
import growth
import model
import scenes
import scorer
import settings
import tokenizer as words
import vae


def put(s, name, modules):
    """A checkpoint at step 0, whose average is the weights themselves."""
    path = s.work / f"{name}.pt"
    if path.exists():
        print(f"{path} is there already")
        return
    run = checkpoint.Run(path, modules)
    run.save()
    print(f"{path} made")


def main():
    s = settings.read(__doc__, source=(Path, settings.ROOT / "models"))
    turbo = s.source / "pocket-turbo"
    shutil.copytree(turbo / "tokenizer", s.work / "tokenizer", dirs_exist_ok=True)
    size = len(words.load(s))
    coder, exported = vae.build(s), AutoencoderTiny.from_pretrained(turbo / "vae", dtype=torch.float32)
    coder.encoder.load_state_dict(exported.encoder.state_dict())
    growth.grow(coder.decoder, exported.decoder)
    put(s, "vae", {"model": coder, "average": checkpoint.Average(coder, vae.EMA)})
    towers = clip.build(s, size)
    towers.load_state_dict(CLIPModel.from_pretrained(s.source / "pocket-clip", dtype=torch.float32).state_dict())
    put(s, "clip", {"model": towers})
    drawer = model.Drawer(s, size)
    drawer.unet.load_state_dict(
        UNet2DConditionModel.from_pretrained(turbo / "unet", dtype=torch.float32).state_dict())
    drawer.text.load_state_dict(
        CLIPTextModel.from_pretrained(turbo / "text_encoder", dtype=torch.float32).state_dict())
    put(s, "text", {"text": drawer.text})
    put(s, "unet", {"model": drawer.unet, "average": checkpoint.Average(drawer.unet, s.unet.ema)})
    judge = scorer.Scorer(s, len(scenes.World(s).concepts))
    scorer.unfold(judge, load_file(s.source / "pocket-scorer" / "model.safetensors"))
    put(s, "scorer", {"model": judge})


if __name__ == "__main__":
    main()
