"""Writes the model folders in f16, no file over 16 MB.

    tools/train/export [--to models]
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, CLIPTokenizer

import balance
import checkpoint
import clip
import grid
import model
import prompts
import scenes
import scorer
import settings
import tokenizer as words
import vae

SHARD = "12MB"
PROMPTS = 1100


def averaged(s, vocabulary):
    """The UNet, as the moving average has it, and the first text encoder."""
    drawer = model.Drawer(s, vocabulary)
    checkpoint.Run(s.work / "text.pt", {"text": drawer.text})
    run = checkpoint.Run(s.work / "unet.pt", {"average": vae.Held(drawer.unet)})
    return drawer.eval().requires_grad_(False), run


def pipeline(s):
    tokenizer = words.load(s)
    drawer, run = averaged(s, len(tokenizer))
    coder = vae.load(s)
    found = StableDiffusionXLPipeline(
        vae=coder, text_encoder=drawer.text, text_encoder_2=model.text_tower(s, clip.load(s)), tokenizer=tokenizer,
        tokenizer_2=CLIPTokenizer.from_pretrained(s.work / "tokenizer"), unet=drawer.unet, scheduler=model.scheduler(),
        force_zeros_for_empty_prompt=False, add_watermarker=False)
    return found, run


def main():
    s = settings.read(__doc__, to=(Path, settings.ROOT / "models"))
    found, run = pipeline(s)
    said = sentences(s)
    found.set_progress_bar_config(disable=True)
    balance.balance(found, list(said))
    grid.place_solved(found.text_encoder, s.text.taught)
    turbo, pair, judge = folders = [s.to / name for name in ("pocket-turbo", "pocket-clip", "pocket-scorer")]
    for folder in folders:
        for path in folder.glob("*"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix in (".json", ".safetensors"):
                path.unlink()
    found.to(torch.float16).save_pretrained(turbo, max_shard_size=SHARD)
    config = turbo / "vae" / "config.json"
    fields = json.loads(config.read_text())
    # diffusers adds this one itself, and warns when it reads it.
    fields.pop("block_out_channels", None)
    config.write_text(json.dumps(fields, indent=2) + "\n")
    for folder in ("tokenizer", "tokenizer_2"):
        words.vocabulary.write(turbo / folder, found=merges(s), length=s.tokens)
        (turbo / folder / "tokenizer.json").unlink(missing_ok=True)
    towers = clip.load(s).half()
    towers.logit_scale.data = towers.logit_scale.data.float()
    towers.save_pretrained(pair, max_shard_size=SHARD)
    words.vocabulary.write(pair, found=merges(s), length=s.tokens)
    side = {"height": s.picture, "width": s.picture}
    CLIPImageProcessor(do_resize=True, size=side, do_center_crop=False, crop_size=side, image_mean=[clip.MEAN] * 3,
                       image_std=[clip.DEVIATION] * 3).save_pretrained(pair)
    (turbo / "prompts.txt").write_text("\n".join(said) + "\n")
    write_judge(s, judge, said)
    cards = settings.HERE / "cards"
    shutil.copy(cards / "NOTICE", s.to / "NOTICE")
    for folder in folders:
        shutil.copy(cards / f"{folder.name}.md", folder / "README.md")
    sizes = {path.relative_to(s.to): path.stat().st_size for path in s.to.rglob("*") if path.is_file()}
    generator = sum(size for path, size in sizes.items() if path.parts[0] != judge.name)
    assert max(sizes.values()) < 16e6 and generator < 48e6, sizes
    print(json.dumps({str(path): size for path, size in sorted(sizes.items())}, indent=1))
    print(f"{sum(sizes.values()) / 1e6:.1f} MB, UNet after {run.step} steps, {run.samples} samples")


def write_judge(s, folder, said):
    """The scorer, with the objects of each sentence that pictures are made of."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [about["names"][0] for about in scenes.World(s).concepts]
    save_file(scorer.folded(scorer.load(s, len(names))), folder / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "scorer", "image_size": s.picture, "channels": s.scorer.channels,
              "hidden_size": s.scorer.hidden, "objects": names}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    wanted = {text: [names[concept] for concept in objects] for text, objects in said.items()}
    (folder / "prompts.json").write_text(json.dumps(wanted, indent=1) + "\n")


def sentences(s):
    """Prompts of held-out combinations, for measuring and evaluating quantized models, and their objects."""
    world, rng = scenes.World(s), np.random.default_rng(12)
    found = {}
    for index in range(200_000, 200_000 + 2 * PROMPTS):
        scene = world.scene(index, held_out=True)
        found.setdefault(prompts.sentence(world, scene, rng, leave_open=0).text, scene.objects)
    return dict(list(found.items())[:PROMPTS])


def merges(s):
    lines = (s.work / "tokenizer" / "merges.txt").read_text(encoding="utf-8").splitlines()
    return lines[1:]


if __name__ == "__main__":
    main()
