"""The latents: principal components of the pictures' 8×8 patches.

    tools/train/basis

Objects stand in step with the patches, so the components say more than those of any pictures. A decoder learns to draw
from them and an encoder to find them (`vae`); the UNet can be trained at once. The component of deviation d is scaled
to the square root of d: between the weight that pixels give it and that of white latents.
"""

import numpy as np
import torch

import device
import scenes
import settings

SIDE = 8
PICTURES = 4000
# Latents of the sampler's scale have deviation 1; the tiny autoencoder bends its own beyond 3.
SCALING = 4.0


class Basis:
    """Pictures to latents of the sampler's scale, and nearly back."""

    def __init__(self, s):
        with np.load(s.work / "basis.npz") as arrays:
            self.mean, self.there, self.back = (device.array(arrays[k]) for k in ("mean", "there", "back"))

    def encode(self, pictures):
        n, channels, height, width = pictures.shape
        cut = pictures.reshape(n, channels, height // SIDE, SIDE, width // SIDE, SIDE).permute(0, 2, 4, 3, 5, 1)
        return ((cut.flatten(3) - self.mean) @ self.there).permute(0, 3, 1, 2).contiguous()

    def decode(self, latents):
        n, _, height, width = latents.shape
        cut = (latents.permute(0, 2, 3, 1) @ self.back + self.mean).reshape(n, height, width, SIDE, SIDE, -1)
        return cut.permute(0, 5, 1, 3, 2, 4).reshape(n, -1, height * SIDE, width * SIDE)


def main():
    s = settings.read(__doc__)
    settings.torch_up(s)
    world = scenes.World(s)
    total, square, count = np.zeros(3 * SIDE * SIDE), np.zeros((3 * SIDE * SIDE,) * 2), 0
    for i in range(PICTURES):
        picture = world.render(world.scene(i)).astype(np.float64) / 127.5 - 1
        side = s.picture // SIDE
        cut = picture.reshape(side, SIDE, side, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(side * side, -1)
        total, square, count = total + cut.sum(0), square + cut.T @ cut, count + len(cut)
    mean = total / count
    values, vectors = np.linalg.eigh(square / count - np.outer(mean, mean))
    deviations = np.sqrt(values[::-1][:s.vae.latent_channels])
    vectors = vectors[:, ::-1][:, :s.vae.latent_channels]
    vectors *= np.sign(vectors.sum(0))
    scale = 1 / np.sqrt(deviations * deviations.mean())
    np.savez(s.work / "basis.npz", mean=mean.astype(np.float32), there=(vectors * scale).astype(np.float32),
             back=(vectors / scale).T.astype(np.float32))
    print("deviations", np.round(deviations * scale, 2))


if __name__ == "__main__":
    main()
