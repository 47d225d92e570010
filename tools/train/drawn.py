"""Latents as the UNet draws them, beside the pictures that they should have been: what `vae` then learns to draw from.

    tools/train/drawn [--count 40000]

Walkers of one and of four steps go the sampler's way, as in training, but nothing is learned. Parts of a thousand
pictures are files of their own, so the same command goes on where it was. They are of one UNet: when that is trained
further, remove the folder `drawn` first.
"""

import numpy as np
import torch

import basis
import checkpoint
import clip
import device
import model
import registers
import scenes
import settings
import tokenizer as words
import vae
import walkers

PART = 1000
KINDS = {1: 0.6, 4: 0.4}
# The first scene: numbers below are those that the UNet was trained on.
START = 10_000_000


@torch.inference_mode()
def part(s, world, batch, drawer, number):
    """The first thousand pictures that end, of scenes that no other part has."""
    latents, pictures, step = [], [], 0
    begun = START + number * 10 * PART
    while len(latents) < PART:
        begun += batch.begin(begun, 1, step)
        x, t, _ = batch.now()
        ends = [i for i, left in enumerate(batch.left) if len(left) == 1]
        pictures += [world.render(*batch.shown[i]) for i in ends]
        with settings.narrow(s):
            v = drawer(x, t, batch.context, batch.pooled).float()
        batch.follow(t, v, step)
        latents += [batch.x[i].half().cpu().numpy() for i in ends]
        step += 1
    return np.stack(latents[:PART]), np.stack(pictures[:PART])


def main():
    s = settings.read(__doc__, count=(int, 40_000))
    settings.torch_up(s)
    world, tokenizer, latents = scenes.World(s), words.load(s), basis.Basis(s)
    wanted, tower = registers.Registers(s, world), model.text_tower(s, clip.load(s))
    drawer = model.Drawer(s, len(tokenizer))
    for name in ("text.pt", "unet.pt"):
        if not (s.work / name).exists():
            raise SystemExit(f"{s.work / name} is not there; it comes of tools/train/{name.removesuffix('.pt')}")
    checkpoint.Run(s.work / "text.pt", {"text": drawer.text})
    checkpoint.Run(s.work / "unet.pt", {"average": vae.Held(drawer.unet)})
    folder = s.work / "drawn"
    folder.mkdir(exist_ok=True)
    for number in range(-(-s.count // PART)):
        path = folder / f"{number:04}.npz"
        if not path.exists():
            batch = walkers.Walkers(s, world, wanted, latents, drawer, tower, tokenizer, number, KINDS)
            made = part(s, world, batch, drawer, number)
            np.savez(folder / "part", latents=made[0], pictures=made[1])
            (folder / "part.npz").rename(path)
            print(f"{path.name}: {latents_error(latents, *made):.4f} of the latents' mean square is astray")


def latents_error(latents, drawn, pictures):
    true = latents.encode(scenes.tensor(pictures))
    return ((device.array(drawn).float() - true).square().mean() / true.square().mean()).item()


if __name__ == "__main__":
    main()
