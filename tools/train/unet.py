"""Trains the UNet for few steps from the start.

    tools/train/unet [--until HH:MM]

There is no teacher: a sentence that says everything decides the picture, and what it leaves open is decided by the
first noise (`coupling`), so that the mean which one step learns is a sharp picture. Half of the samples are at the
first timestep from pure noise, as the sampler starts; the others are mostly at the timesteps of four steps. The
attention of the last block is shown where to look (`looking`). The text encoders stay as they are.
"""

import numpy as np
import torch
from PIL import Image

import basis
import checkpoint
import clip
import coupling
import looking
import model
import prompts
import registers
import scenes
import settings
import tokenizer as words

FIRST = 999
# Parts of the samples: the first timestep, those of four steps, any.
PARTS = (0.5, 0.95)
FOUR = (749, 499, 249)
# Sentences are encoded for so many steps at once, and each is used so often, with other noise.
BLOCK, USES = 16, 4
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


def sigmas():
    betas = torch.linspace(model.NOISE["beta_start"] ** 0.5, model.NOISE["beta_end"] ** 0.5, 1000,
                           dtype=torch.float32) ** 2
    kept = torch.cumprod(1 - betas, 0)
    return ((1 - kept) / kept) ** 0.5


def times(rng, count):
    """Timesteps of a batch."""
    kind = rng.random(count)
    found = np.where(kind < PARTS[1], rng.choice(FOUR, count), rng.integers(1, FIRST, count))
    return np.where(kind < PARTS[0], FIRST, found)


@torch.no_grad()
def preview(s, drawer, tower, tokenizer, latents, path):
    ids = clip.tokens(tokenizer, list(PREVIEW), s.tokens)
    rows = []
    for steps in (1, 4):
        drawn = model.draw(drawer, tower, ids, steps, range(len(PREVIEW)))
        pictures = list(latents.decode(drawn).clamp(-1, 1))
        rows += [torch.cat(pictures[i:i + 8], -1) for i in range(0, len(pictures), 8)]
    whole = ((torch.cat(rows, -2).permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    Image.fromarray(whole).resize((whole.shape[1] * 2, whole.shape[0] * 2), 0).save(path)


def encoded(s, drawer, tower, tokenizer, said):
    """Both encoders' answers to sentences."""
    with torch.no_grad(), settings.narrow(s):
        parts = [drawer.context(tower, clip.tokens(tokenizer, [p.text for p in said[i:i + 32]], s.tokens))
                 for i in range(0, len(said), 32)]
    return [torch.cat(part) for part in zip(*parts)]


def train(s, rank, shared, control, barrier):
    """One worker: the same network in each, its own part of every batch, the mean of all gradients."""
    torch.set_num_threads(1 if s.unet.workers > 1 else s.threads)
    world, tokenizer = scenes.World(s), words.load(s)
    latents, wanted = basis.Basis(s), registers.Registers(s, world)
    tower = model.text_tower(s, clip.load(s))
    torch.manual_seed(4)
    drawer = model.Drawer(s, len(tokenizer))
    checkpoint.Run(s.work / "text.pt", {"text": drawer.text})
    drawer.text.requires_grad_(False)
    drawer.unet.to(memory_format=torch.channels_last)
    watched = looking.watch(drawer.unet, wanted)
    optimizer = torch.optim.AdamW(drawer.unet.parameters(), lr=s.unet.rate, betas=(0.9, 0.98), weight_decay=0.01,
                                  fused=True)
    average = checkpoint.Average(drawer.unet, s.unet.ema)
    run = checkpoint.Run(s.work / "unet.pt", {"model": drawer.unet, "average": average}, optimizer, keeps=rank == 0)
    if rank == 0:
        run.stop_politely()
    copy = model.Drawer(s, len(tokenizer))
    copy.text = drawer.text
    if rank == 0:
        print(f"{sum(p.numel() for p in drawer.unet.parameters()) / 1e6:.2f} M parameters")
    table, losses, block = sigmas(), [], None
    whole = s.unet.batch * s.unet.workers
    while (done := agreed(s, run, rank, control, barrier)) < 1:
        if block != run.step // BLOCK:
            block = run.step // BLOCK
            count = s.unet.batch * BLOCK // USES
            start = (block * s.unet.workers + rank) * count
            known = [world.scene(i) for i in range(start, start + count)]
            rng = np.random.default_rng([block, 9, rank])
            sentences = [prompts.sentence(world, scene, rng) for scene in known]
            contexts, summaries = encoded(s, drawer, tower, tokenizer, sentences)
        rng = np.random.default_rng([run.step, 14, rank])
        generator = torch.Generator().manual_seed(run.step * s.unet.workers + rank)
        chosen = rng.choice(len(known), s.unet.batch, replace=False)
        found, said = [known[i] for i in chosen], [sentences[i] for i in chosen]
        clean = latents.encode(scenes.tensor([world.render(scene) for scene in found]))
        aims = torch.stack([looking.aim(s, world, wanted, scene) for scene in found])
        noise = torch.randn(clean.shape, generator=generator)
        t = times(rng, len(found))
        for i in np.flatnonzero(t == FIRST):
            coupling.couple(noise[i], found[i], said[i])
        t = torch.from_numpy(t)
        first = t == FIRST
        sigma = table[t].view(-1, 1, 1, 1)
        x = torch.where(first.view(-1, 1, 1, 1), 0.0, clean) + sigma * noise
        level = sigma.square() + 1
        target = (x / level - clean) * level.sqrt() / sigma
        rate = checkpoint.schedule(optimizer, s.unet.rate, done, run.step, warm=50)
        with settings.narrow(s):
            v = drawer((x / level.sqrt()).contiguous(memory_format=torch.channels_last), t, contexts[chosen],
                       summaries[chosen]).float()
        error = (v - target).square().mean((1, 2, 3))
        astray, right = looking.astray(watched, aims)
        optimizer.zero_grad()
        (error.mean() + LOOK * astray).backward()
        share(drawer, rank, shared, barrier)
        torch.nn.utils.clip_grad_norm_(drawer.unet.parameters(), 1.0)
        optimizer.step()
        average.follow(drawer.unet, run.step)
        run.after(whole)
        losses.append((error.detach()[first].mean().item(), error.detach()[~first].mean().item(), right))
        if rank == 0 and run.step % 100 == 0:
            a, b, right = np.nanmean(losses, 0)
            losses.clear()
            print(f"step {run.step} samples {run.samples} {run.seconds:.0f} s ({run.samples / run.seconds:.1f}/s) "
                  f"first {a:.4f} later {b:.4f} looks right {right:.1%} rate {rate:.5f}")
        if rank == 0 and run.step % 500 == 0:
            average.copy_to(copy.unet)
            preview(s, copy, tower, tokenizer, latents, s.work / "unet.png")
    if rank == 0:
        run.save()
        average.copy_to(copy.unet)
        preview(s, copy, tower, tokenizer, latents, s.work / "unet.png")


def agreed(s, run, rank, control, barrier):
    """The part that is done, by the clock of the first worker."""
    if rank == 0:
        over = checkpoint.until(s.until) <= 0
        control[0] = 1.0 if over else checkpoint.part_done(run, s.unet.samples, s.until)
    barrier.wait()
    return float(control[0])


def share(module, rank, shared, barrier):
    """Replaces every gradient by its mean over the workers, through memory that all see."""
    if len(shared) == 1:
        return
    used = [p.grad for p in module.parameters() if p.grad is not None]
    size = sum(g.numel() for g in used)
    torch.cat([g.reshape(-1) for g in used], out=shared[rank][:size])
    barrier.wait()
    mean = shared[:, :size].mean(0)
    start = 0
    for gradient in used:
        gradient.copy_(mean[start:start + gradient.numel()].view(gradient.shape))
        start += gradient.numel()
    barrier.wait()


def main():
    s = settings.read(__doc__, until=(str, None))
    settings.torch_up(s)
    size = sum(p.numel() for p in model.build_unet(s).parameters())
    context = torch.multiprocessing.get_context("spawn")
    barrier = context.Barrier(s.unet.workers)
    shared = torch.zeros(s.unet.workers, size if s.unet.workers > 1 else 0).share_memory_()
    control = torch.zeros(1, dtype=torch.float64).share_memory_()
    for rank in range(1, s.unet.workers):
        context.Process(target=train, args=(s, rank, shared, control, barrier), daemon=True).start()
    train(s, 0, shared, control, barrier)


if __name__ == "__main__":
    main()
