"""Samples that walk the sampler's own way, one training step for each of its steps.

A network that only sees true pictures with noise learns to trust its input; what it sees when it draws is its own last
guess with noise, errors and all. So a sample of several steps stays in the batch until it is drawn: what the network
guesses in one training step is, with new noise as the sampler has it, what the next one corrects.
"""

import numpy as np
import torch

import clip
import coupling
import device
import looking
import model
import prompts
import scenes
import settings

FIRST = 999
# Parts of the samples begun, by their number of steps; those of none see the true picture at any timestep.
KINDS = {1: 0.50, 4: 0.30, 2: 0.06, 3: 0.04, 0: 0.10}


def sigmas():
    betas = torch.linspace(model.NOISE["beta_start"] ** 0.5, model.NOISE["beta_end"] ** 0.5, 1000,
                           dtype=torch.float32) ** 2
    kept = torch.cumprod(1 - betas, 0)
    return ((1 - kept) / kept) ** 0.5


def ways(kinds):
    """The timesteps of each number of steps."""
    found = {}
    for steps in filter(None, kinds):
        sampler = model.scheduler()
        sampler.set_timesteps(steps)
        found[steps] = [int(t) for t in sampler.timesteps]
    return found


class Walkers:
    """A batch; `begin` gives every finished walker a new scene, `follow` takes a step."""

    def __init__(self, s, world, wanted, latents, drawer, tower, tokenizer, seed, kinds=KINDS):
        self.s, self.world, self.wanted, self.latents = s, world, wanted, latents
        self.drawer, self.tower, self.tokenizer, self.seed = drawer, tower, tokenizer, seed
        n, side, channels = s.unet.batch, drawer.unet.config.sample_size, drawer.unet.config.in_channels
        width = drawer.unet.config.cross_attention_dim
        self.kinds, self.table, self.ways = kinds, sigmas(), ways(kinds)
        self.x, self.clean = torch.zeros(2, n, channels, side, side)
        self.context, self.pooled = torch.zeros(n, s.tokens, width), torch.zeros(n, s.clip.projection)
        self.aims = torch.zeros(n, side * side, dtype=torch.long)
        self.left = [[] for _ in range(n)]
        self.asked, self.shown = [None] * n, [None] * n

    def begin(self, start, stride, step):
        """New scenes, number `start` and every `stride`-th from there; returns how many."""
        free = [i for i, left in enumerate(self.left) if not left]
        if not free:
            return 0
        rng = np.random.default_rng([step, 14, self.seed])
        generator = device.generator(2 * (step * 64 + self.seed))
        found = [self.world.scene(start + stride * k) for k in range(len(free))]
        kinds = [int(kind) for kind in rng.choice(list(self.kinds), len(free), p=list(self.kinds.values()))]
        # A true picture shows already what its sentence leaves open, so those sentences say all.
        said = [prompts.sentence(self.world, scene, rng, leave_open=prompts.OPEN if kind else 0)
                for scene, kind in zip(found, kinds)]
        ids = clip.tokens(self.tokenizer, [p.text for p in said], self.s.tokens)
        with torch.no_grad(), settings.narrow(self.s):
            context, pooled = self.drawer.context(self.tower, ids)
        self.context[free], self.pooled[free] = context.float(), pooled.float()
        noise = device.normal(len(free), *self.x.shape[1:], by=generator)
        for i, kind, scene, prompt, own in zip(free, kinds, found, said, noise):
            self.asked[i], self.shown[i] = (scene, prompt), None
            self.aims[i] = looking.aim(self.s, self.world, self.wanted, scene)
            self.left[i] = list(self.ways[kind]) if kind else [int(rng.integers(1, FIRST))]
            self.x[i] = (self.table[FIRST].square() + 1).sqrt() * own
        self.decide()
        for i, kind, own in zip(free, kinds, noise):
            if not kind:
                self.x[i] = self.clean[i] + self.table[self.left[i][0]] * own
        return len(free)

    def decide(self):
        """The true pictures, where sentences leave something open as the inputs have it now."""
        shown = [coupling.decided(x, *asked) for x, asked in zip(self.x, self.asked)]
        new = [i for i, (now, before) in enumerate(zip(shown, self.shown))
               if before is None or now[0] != before[0] or (now[1] != before[1]).any()]
        if new:
            pictures = [self.world.render(*shown[i]) for i in new]
            self.clean[new] = self.latents.encode(scenes.tensor(pictures))
        self.shown = shown

    def now(self):
        """What the network is shown: inputs, their timesteps, and the target."""
        t = torch.tensor([left[0] for left in self.left])
        sigma = self.table[t].view(-1, 1, 1, 1)
        level = sigma.square() + 1
        target = (self.x / level - self.clean) * level.sqrt() / sigma
        return self.x / level.sqrt(), t, target

    @torch.no_grad()
    def follow(self, t, v, step):
        """Ancestral Euler's step from the network's answers."""
        generator = device.generator(2 * (step * 64 + self.seed) + 1)
        now = self.table[t].view(-1, 1, 1, 1)
        level = now.square() + 1
        guess = self.x / level - v * now / level.sqrt()
        after = torch.tensor([float(self.table[left[1]]) if len(left) > 1 else 0.0 for left in self.left])
        after = after.view(-1, 1, 1, 1)
        up = (after.square() * (now.square() - after.square()) / now.square()).sqrt()
        down = (after.square() - up.square()).sqrt()
        noise = device.normal(*self.x.shape, by=generator)
        self.x = guess + (self.x - guess) * down / now + up * noise
        for left in self.left:
            del left[0]
        self.decide()
