"""Trains the autoencoder.

    tools/train/vae [--until HH:MM]

The latents are given (`basis`): the decoder learns to draw from them, the encoder to find them. Most steps see pieces of
scenes, the last quarter whole ones; the decoder is taught to bear small errors. After `drawn` the stage is run again, with
more samples: then all scenes are whole, and of every second one the decoder is given what the UNet makes of it.
"""

import numpy as np
import torch
from diffusers import AutoencoderTiny
from PIL import Image

import basis
import checkpoint
import device
import muon
import scenes
import settings
import team

CROP = 40
NOISE = 0.05
EMA = 0.998


def build(s):
    depth = len(s.vae.decoder_blocks)
    return AutoencoderTiny(
        encoder_block_out_channels=(s.vae.encoder_channels,) * depth,
        decoder_block_out_channels=(s.vae.decoder_channels,) * depth,
        num_encoder_blocks=tuple(s.vae.encoder_blocks), num_decoder_blocks=tuple(s.vae.decoder_blocks),
        latent_channels=s.vae.latent_channels, scaling_factor=basis.SCALING)


def load(s):
    """The trained autoencoder, for other stages."""
    model = build(s)
    checkpoint.Run(s.work / "vae.pt", {"average": Held(model)})
    return model.eval().requires_grad_(False)


class Held(torch.nn.Module):
    """Takes averaged weights straight into a module."""

    def __init__(self, module):
        super().__init__()
        self.held = [module]

    def load_state_dict(self, state):
        values = [state[f"values.{i}"] for i in range(len(state))]
        with torch.no_grad():
            for parameter, value in zip(self.held[0].parameters(), values, strict=True):
                parameter.copy_(value)


def taught(folder):
    """What `drawn` has made: latents `[n, channels, height, width]` and pictures `[n, height, width, 3]`, or nothing."""
    parts = [np.load(path) for path in sorted(folder.glob("[0-9]*.npz"))]
    return [np.concatenate([part[name] for part in parts]) for name in ("latents", "pictures")] if parts else None


def crop(world, scene, rng):
    """A piece of a scene, cut between latents; there is something of an object in most of them."""
    picture = world.render(scene)
    x, y = basis.SIDE * rng.integers(0, (world.picture - CROP) // basis.SIDE + 1, 2)
    return picture[y:y + CROP, x:x + CROP]


def slopes(x):
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def losses(model, pictures, latents, given):
    """Absolute error of pixels and of their slopes, and the encoder's distance from the latents it is to find."""
    found = model.decoder(given).float()
    error = found - pictures
    pixels = error.abs().mean() + 2 * error.square().mean()
    edges = sum((a - b).abs().mean() for a, b in zip(slopes(found), slopes(pictures)))
    apart = (model.encoder(pictures).float() - latents).square().mean() * basis.SCALING ** 2
    return pixels + 0.5 * edges + apart, error, apart


@torch.no_grad()
def check(model, world, latents, path):
    """Decibels on held-out scenes; the first sixteen and their copies as a picture."""
    pictures = scenes.tensor([world.render(world.scene(i, held_out=True)) for i in range(128)])
    exact = latents.encode(pictures)
    copies, found = (model.decoder(z).clamp(-1, 1) for z in (exact / basis.SCALING, model.encoder(pictures)))
    all_three = copies, found, latents.decode(exact).clamp(-1, 1)
    decibels = [-10 * torch.log10(((c - pictures) / 2).square().mean((1, 2, 3))).mean().item() for c in all_three]
    rows = torch.cat([torch.cat(list(t[i:i + 8]), -1) for i in (0, 8) for t in (pictures, copies)], -2)
    picture = ((rows.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
    Image.fromarray(picture).resize((picture.shape[1] * 2, picture.shape[0] * 2), 0).save(path)
    print(f"held out: {decibels[0]:.2f} dB from exact latents, {decibels[1]:.2f} dB from the encoder's, where the components "
          f"alone keep {decibels[2]:.2f} dB")


def lesson(s, world, latents, drawn, run, done, own):
    """Pictures, their latents, and what the decoder is given for each, all of them this worker's."""
    rng, by = np.random.default_rng([run.step, 2, own.rank]), device.generator(run.step * own.size + own.rank)
    whole = drawn is not None or done > 0.75
    count = s.vae.batch // (1 if not whole else 4 if drawn is None else 2)
    found = [world.scene(run.samples + own.rank * count + i) for i in range(count)]
    pictures = [world.render(scene) if whole else crop(world, scene, rng) for scene in found]
    others = [] if drawn is None else rng.integers(0, len(drawn[0]), count)
    pictures = scenes.tensor(pictures + [drawn[1][i] for i in others])
    exact = latents.encode(pictures)
    given = exact + NOISE * device.normal(*exact.shape, by=by)
    for k, i in enumerate(others, count):
        given[k] = torch.from_numpy(drawn[0][i])
    return pictures.contiguous(memory_format=torch.channels_last), exact / basis.SCALING, given / basis.SCALING


def train(s, own):
    """One worker: the same network in each, its own part of every batch, the mean of all gradients."""
    team.torch_up(s, own.size)
    world, latents, drawn = scenes.World(s), basis.Basis(s), taught(s.work / "drawn")
    torch.manual_seed(1)
    model = build(s).to(memory_format=torch.channels_last)
    optimizer = muon.Muon(model, ends(model), s.vae.rate, own)
    average = checkpoint.Average(model, EMA)
    run = checkpoint.Run(s.work / "vae.pt", {"model": model, "average": average}, optimizer, keeps=own.is_first())
    if own.is_first():
        run.stop_politely()
        print(sum(p.numel() for p in model.parameters()), "parameters")
    while (done := own.part_done(run, s.vae.samples, s.until)) < 1:
        pictures, exact, given = lesson(s, world, latents, drawn, run, done, own)
        rate = checkpoint.schedule(optimizer, s.vae.rate, done, run.step)
        with settings.narrow(s):
            loss, error, apart = losses(model, pictures, exact, given)
        optimizer.zero_grad()
        loss.backward()
        own.share(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.follow(model, run.step)
        run.after(len(pictures) * own.size)
        if own.is_first() and run.step % 100 == 0:
            mse = error.detach().square().flatten(1).mean(1) / 4
            # Of true latents, and of drawn ones.
            parts = mse.chunk(1 if drawn is None else 2)
            decibels = " and ".join(f"{-10 * torch.log10(part.mean()):.2f}" for part in parts)
            print(f"step {run.step} samples {run.samples} {run.seconds:.0f} s loss {loss:.4f} "
                  f"{decibels} dB encoder {apart:.3f} rate {rate:.5f}")
        if own.is_first() and run.step % 500 == 0:
            check(average.copy_to(build(s)), world, latents, s.work / "vae.png")
    if own.is_first():
        run.save()
        check(average.copy_to(build(s)), world, latents, s.work / "vae.png")


def ends(model):
    """Names of the first and the last layers of the encoder and of the decoder."""
    parts = {"encoder": model.encoder, "decoder": model.decoder}
    return tuple(f"{name}.layers.{i}." for name, part in parts.items() for i in (0, len(part.layers) - 1))


def main():
    s = settings.read(__doc__, until=(str, None))
    team.run(train, s, s.vae.workers, sum(p.numel() for p in build(s).parameters()))


if __name__ == "__main__":
    main()
