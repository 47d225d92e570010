"""Trains the UNet for few steps from the start.

    tools/train/unet [--until HH:MM]

There is no teacher: a sentence that says everything decides the picture, and what it leaves open is decided by the
noise (`coupling`), so that the mean which one step learns is a sharp picture. What decides is read by weights that are
known (`reading`). Samples start from pure noise, as the sampler does, and go its way (`walkers`). The attention of the
last block is shown where to look (`looking`). The text encoders stay as they are.
"""

import numpy as np
import torch
from PIL import Image

import basis
import checkpoint
import clip
import looking
import model
import muon
import reading
import registers
import scenes
import settings
import team
import tokenizer as words
import walkers

FIRST, FOUR = walkers.FIRST, (749, 499, 249)
# Modules at the ends of the network.
ENDS = ("conv_in", "conv_out", "time_embedding", "add_embedding")
# The weight of looking at the right place.
LOOK = 0.2
PREVIEW = ("a red apple on a blue background", "a small fox next to a banana on a yellow background, flat style",
           "a large cat in the middle on a green background, 3d style", "a dog", "a big penguin, flat style",
           "a pizza on a pink background", "an owl above a strawberry on a white background, 3d style",
           "a small tree on the left on a purple background, flat style", "a cup of coffee on a gray background",
           "a lion on the right on an orange background", "a yellow banana on a black background, 3d",
           "a frog and a mushroom on a pink background, flat style", "an octopus at the top on a white background",
           "a large rose at the bottom on a blue background, 3d style", "a burger on a red background, flat design",
           "a tiny bee on a green background")


@torch.no_grad()
def preview(s, drawer, tower, tokenizer, latents, path):
    ids = clip.tokens(tokenizer, list(PREVIEW), s.tokens)
    rows = []
    for steps in (1, 4):
        drawn = model.draw(drawer, tower, ids, steps, range(len(PREVIEW)))
        pictures = list(latents.decode(drawn).clamp(-1, 1))
        rows += [torch.cat(pictures[i:i + 8], -1) for i in range(0, len(pictures), 8)]
    whole = ((torch.cat(rows, -2).permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
    Image.fromarray(whole).resize((whole.shape[1] * 2, whole.shape[0] * 2), 0).save(path)


def train(s, own):
    """One worker: the same network in each, its own part of every batch, the mean of all gradients."""
    team.torch_up(s, own.size)
    world, tokenizer = scenes.World(s), words.load(s)
    latents, wanted = basis.Basis(s), registers.Registers(s, world)
    tower = model.text_tower(s, clip.load(s))
    torch.manual_seed(4)
    drawer = model.Drawer(s, len(tokenizer))
    checkpoint.Run(s.work / "text.pt", {"text": drawer.text})
    drawer.text.requires_grad_(False)
    drawer.unet.to(memory_format=torch.channels_last)
    watched = looking.watch(drawer.unet, wanted)
    optimizer = muon.Muon(drawer.unet, ENDS, s.unet.rate, own)
    average = checkpoint.Average(drawer.unet, s.unet.ema)
    run = checkpoint.Run(s.work / "unet.pt", {"model": drawer.unet, "average": average}, optimizer, keeps=own.is_first())
    if own.is_first():
        run.stop_politely()
        print(f"{sum(p.numel() for p in drawer.unet.parameters()) / 1e6:.2f} M parameters")
    copy = model.Drawer(s, len(tokenizer))
    copy.text = drawer.text
    known = reading.Reading(drawer.unet)
    known.keep()
    batch = walkers.Walkers(s, world, wanted, latents, drawer, tower, tokenizer, own.rank)
    losses = []
    whole = s.unet.batch * s.unet.workers
    while (done := own.part_done(run, s.unet.samples, s.until)) < 1:
        # A walker of several steps is a sample at each, so there are numbers enough.
        batch.begin(run.samples + own.rank, s.unet.workers, run.step)
        x, t, target = batch.now()
        rate = checkpoint.schedule(optimizer, s.unet.rate, done, run.step, warm=50)
        with settings.narrow(s):
            v = drawer(x.contiguous(memory_format=torch.channels_last), t, batch.context, batch.pooled).float()
        error = (v - target).square().mean((1, 2, 3))
        astray, right = looking.astray(watched, batch.aims)
        optimizer.zero_grad()
        (error.mean() + LOOK * astray).backward()
        batch.follow(t, v.detach(), run.step)
        own.share(drawer)
        torch.nn.utils.clip_grad_norm_(drawer.unet.parameters(), 1.0)
        with settings.narrow(s):
            optimizer.step()
        known.keep()
        average.follow(drawer.unet, run.step)
        run.after(whole)
        losses.append([error.detach()[t == some].mean().item() for some in (FIRST, *FOUR)] + [right])
        if own.is_first() and run.step % 50 == 0:
            *errors, right = np.nanmean(losses, 0)
            losses.clear()
            print(f"step {run.step} samples {run.samples} {run.seconds:.0f} s ({run.samples / run.seconds:.1f}/s) "
                  f"errors {' '.join(f'{e:.4f}' for e in errors)} looks right {right:.1%} rate {rate:.5f}")
        if own.is_first() and run.step % 500 == 0:
            average.copy_to(copy.unet)
            preview(s, copy, tower, tokenizer, latents, s.work / "unet.png")
    if own.is_first():
        run.save()
        average.copy_to(copy.unet)
        preview(s, copy, tower, tokenizer, latents, s.work / "unet.png")


def main():
    s = settings.read(__doc__, until=(str, None))
    team.run(train, s, s.unet.workers, sum(p.numel() for p in model.build_unet(s).parameters()))


if __name__ == "__main__":
    main()
