"""Puts the product of piece and ground into the last block of a trained UNet, by least squares.

    tools/train/product [--source unet.pt] [--to product.pt]

The last block finds the register of the piece that belongs to a place; what is to be drawn there is a product of the
register's numbers with the style and the colour of the ground. Training is slow to find it, since the numbers
themselves must come through first: the attention's values were too few-voiced to tell half of them. So this stage

- keeps of the block's own stream only the directions that its queries and units use,
- lets the attention carry the register's numbers and what the sentence says in all others, beside a constant that
  steadies the normalisation,
- gives the units that say least to products: a linear function of the numbers, times a gate for style and colour,
- writes their sum to pairs of channels of opposite sign, and solves the last convolution anew.

Other weights stay; `unet` trains all of them further from there.
"""

from types import SimpleNamespace

import numpy as np
import torch

import colours
import device
import looking
import registers
import scenes
import settings
import solved
import walkers

# Directions of the stream that are kept, and weakest numbers of each mask that are left out for them.
KEPT, LEFT_OUT = 28, 3
# Deviation of a carried number; of one that says colour or style, times more; energy of the constant beside all others.
GAIN, SAID, CONSTANT = 2.5, 1 / 0.3, 4.0
# Gates: their height, what the lightest ground adds, and the functions of the numbers for each part of colour.
HEIGHT, LIGHT, RANK = 2.5, 2.4, 22
# Deviation of what is written, beside what is there; ridge of the last convolution.
WRITTEN, RIDGE = 1.5, 1e-2
# Samples by their number of steps.
SEVERAL = {1: 700, 4: 150}
# How much places without an object count.
ELSEWHERE = 0.3


def least_squares(x, y, ridge=1e-4):
    square = x.T @ x
    return torch.linalg.solve(square + ridge * square.diagonal().mean() * torch.eye(len(square)), x.T @ y)


def samples(s, world, wanted, latents, drawer, tower, tokenizer, several, batch=50):
    """What the last block is given, over whole ways of so many samples of 1 and of 4 steps."""
    found, rows, seen = [], [], {}
    block = drawer.unet.up_blocks[-1].attentions[-1]
    hook = block.register_forward_pre_hook(lambda _, given: seen.update(h=given[0]))
    s.unet.batch = batch
    for steps, count in several.items():
        for start in range(0, count, batch):
            start += 3_000_000 * steps
            group = walkers.Walkers(s, world, wanted, latents, drawer, tower, tokenizer, steps, {steps: 1.0})
            group.begin(start, 1, start)
            while group.left[0]:
                x, t, target = group.now()
                with settings.narrow(s):
                    v = drawer(x.contiguous(memory_format=torch.channels_last), t, group.context, group.pooled).float()
                rows.append((seen["h"].float(), group.context.clone(), target, group.aims.clone(), t,
                             group.clean.flatten(2).mT.clone()))
                found += group.shown
                group.follow(t, v, start + len(rows))
    hook.remove()
    h, context, target, aims, t, clean = (torch.cat(part) for part in zip(*rows))
    return SimpleNamespace(h=h, context=context, target=target, aims=aims, t=t, clean=clean,
                           style=torch.tensor([scene.style for scene, _ in found]),
                           ground=device.array(np.array([ground for _, ground in found], np.float32)) / 255 - 0.5)


class Last:
    """The last block from its last attention on."""

    def __init__(self, unet):
        self.unet, self.transformer = unet, unet.up_blocks[-1].attentions[-1]
        self.block = self.transformer.transformer_blocks[0]
        self.watched = looking.Watched()
        self.block.attn2.set_processor(self.watched)
        self.seen = {}
        self.block.norm2.register_forward_pre_hook(lambda _, given: self.seen.update(stream=given[0]))
        self.block.ff.register_forward_pre_hook(lambda _, given: self.seen.update(normal=given[0]))
        self.block.ff.net[0].proj.register_forward_hook(lambda *given: self.seen.update(before=given[2]))
        self.block.ff.net[2].register_forward_pre_hook(lambda _, given: self.seen.update(units=given[0]))
        unet.conv_out.register_forward_pre_hook(lambda _, given: self.seen.update(features=given[0]))

    def __call__(self, data, *names):
        """The values of all names and the answers, over all samples; how often attention looks right."""
        found, right = [], []
        for i in range(0, len(data.h), 100):
            x = self.transformer(data.h[i:i + 100], data.context[i:i + 100], return_dict=False)[0]
            answer = self.unet.conv_out(torch.nn.functional.silu(self.unet.conv_norm_out(x)))
            found.append([self.seen[name].clone() for name in names] + [answer])
            looked = self.watched.looked
            best = looked.view(len(x), -1, *looked.shape[1:]).mean(1).argmax(-1)
            right.append((best == data.aims[i:i + 100]).float().mean().item())
        return *(torch.cat(part) for part in zip(*found)), np.mean(right)


def with_one(x):
    return torch.cat([x, torch.ones(*x.shape[:-1], 1)], -1)


def directions(last, stream):
    """An orthonormal basis of what is kept, the projection to it, the constant's direction, and all the others."""
    block, width = last.block, stream.shape[-1]
    ones, constant = torch.ones(width) / width ** 0.5, torch.tensor([1.0, -1.0] * (width // 2)) / width ** 0.5
    free = torch.eye(width) - torch.outer(ones, ones) - torch.outer(constant, constant)
    values = (stream.flatten(0, 1) - stream.mean((0, 1))) @ free
    asks = torch.cat([block.attn2.to_q.weight * block.norm2.weight,
                      0.3 * block.ff.net[0].proj.weight * block.norm3.weight]) @ free
    wants = asks.T @ asks
    wants = wants / wants.diagonal().mean() + 0.2 * torch.eye(width)
    sizes, axes = torch.linalg.eigh(torch.cov(values.T) + 1e-4 * torch.eye(width))
    half = axes @ torch.diag(sizes.clamp_min(1e-6).sqrt()) @ axes.T
    weights, found = torch.linalg.eigh(half @ wants @ half)
    best = found[:, -KEPT:]
    print(f"{KEPT} directions keep {weights[-KEPT:].sum() / weights.sum():.1%} of what queries and units ask")
    kept = torch.linalg.qr(free @ half @ best)[0]
    projection = kept @ (kept.T @ (half @ best)) @ (best.T @ torch.linalg.inv(half)) @ free
    every = torch.cat([kept, ones[:, None], constant[:, None]], 1)
    others = torch.linalg.svd(every.T, full_matrices=True)[2][KEPT + 2:].T
    return projection, constant, others, (values @ kept).square().sum(1).mean()


def carry(s, wanted, last, state, on, others, constant, energy, numbers):
    """The last attention's values: the register's numbers and what the sentence says of colour and style."""
    attention, width = last.block.attn2, others.shape[0]
    start = wanted.width - sum(wanted.answers)
    rows = torch.zeros(len(numbers) + 4, s.unet.text_width)
    rows[torch.arange(len(numbers)), numbers] = 1
    values = torch.tensor(colours.VALUES) / 255
    rows[len(numbers):-1, start:start + len(values)] = (values - values.mean(0)).T
    rows[-1, start + wanted.answers[0]], rows[-1, start + wanted.answers[0] + 1] = 1, -1
    told = state @ rows.T
    mean, deviation = told.flatten(0, 1).mean(0), told[on].std(0)
    plain = deviation[:len(numbers)]
    plain.clamp_(min=0.35 * plain.mean())
    deviation[len(numbers):] /= SAID
    turned = torch.linalg.qr(device.normal(len(rows), len(rows), by=device.generator(1)))[0]
    out = GAIN * others[:, :len(rows)] @ turned
    for linear in (attention.to_v, attention.to_out[0]):
        linear.weight.zero_()
    attention.to_v.weight[:len(rows), :s.unet.text_width] = rows / deviation[:, None]
    attention.to_out[0].weight[:, :len(rows)] = out
    energy = energy + len(rows) * GAIN ** 2
    attention.to_out[0].bias.copy_((CONSTANT * energy).sqrt() * constant - out @ (mean / deviation))
    assert len(rows) <= others.shape[1] and width >= len(rows)


def products(data, state, on, numbers):
    """`[sample, place, unit]`: the functions and the gates whose products are the latents of objects."""
    x = with_one(state[..., numbers])
    functions, gates = [], []
    for style in range(len(scenes.STYLES)):
        here = on & (data.style == style)[:, None]
        every = torch.cat([x, *(x * data.ground[:, c, None, None] for c in range(3))], -1)
        maps = least_squares(every[here], data.clean[here], 3e-4).split(x.shape[-1])
        plain, coloured = maps[0].clone(), []
        for c in range(3):
            part = x @ maps[1 + c]
            best = torch.linalg.eigh(part[here].T @ part[here])[1][:, -RANK:]
            # A gate never is 0, so a function of colour is there on any ground: plain ones take that back.
            plain -= HEIGHT / LIGHT * maps[1 + c] @ best @ best.T
            coloured.append(part @ best)
        gate = torch.where(data.style == style, HEIGHT, -HEIGHT)[:, None, None]
        functions += [x @ plain, *coloured]
        gates += [gate.expand(*on.shape, plain.shape[1]),
                  *((gate + LIGHT * data.ground[:, c, None, None]).expand(*on.shape, RANK) for c in range(3))]
    return torch.cat(functions, -1), torch.cat(gates, -1)


@torch.no_grad()
def change(s, world, wanted, latents, drawer, tower, tokenizer):
    rebuild(s, wanted, drawer, samples(s, world, wanted, latents, drawer, tower, tokenizer, SEVERAL))


@torch.no_grad()
def rebuild(s, wanted, drawer, data):
    last = Last(drawer.unet)
    block, transformer, unet = last.block, last.transformer, drawer.unet
    on = data.aims >= registers.FIRST
    state = data.context[..., :wanted.width].gather(
        1, data.aims.clamp_min(registers.FIRST - 1)[..., None].expand(-1, -1, wanted.width))
    said = data.context[:, registers.FIRST - 1, wanted.width - sum(wanted.answers):wanted.width]
    named = (said[:, wanted.answers[0] - 1] < 1) & (said[:, sum(wanted.answers[:2]) - 1] < 1)
    sure = on & named[:, None]
    stream, before, units, features, answer, right = last(data, "stream", "before", "units", "features")
    report("before", data, answer, on, sure, right)
    projection, constant, others, energy = directions(last, stream)
    for linear in (transformer.proj_in, block.attn1.to_out[0]):
        linear.weight.copy_(projection @ linear.weight)
        linear.bias.copy_(projection @ linear.bias)
    masks = 16
    grays = wanted.content // len(scenes.STYLES) - masks
    numbers = torch.tensor([i for i in range(wanted.content)
                            if not grays <= i % (grays + masks) < grays + LEFT_OUT])
    carry(s, wanted, last, state, on, others, constant, energy, numbers)
    normal, *_ = last(data, "normal")
    normal = with_one(normal)
    # The old units see what they saw, as nearly as may be.
    maps = least_squares(normal.flatten(0, 1), before.flatten(0, 1))
    functions, gates = products(data, state, sure, numbers)
    weight = (torch.where(sure, 1.0, ELSEWHERE) * torch.where(named, 1.0, 0.1)[:, None])[..., None]
    size = functions[on].std(0).clamp_min(0.05)
    wide = (normal * weight).flatten(0, 1)
    values = least_squares(wide, (functions * on[..., None] * weight).flatten(0, 1)) / size
    weight_of_gates = torch.where(sure, 1.0, 0.1)[..., None]
    opened = least_squares((normal * weight_of_gates).flatten(0, 1), (gates * weight_of_gates).flatten(0, 1))
    use = units.flatten(0, 1).std(0) * block.ff.net[2].weight.norm(dim=0)
    own, hidden = use.argsort()[:functions.shape[-1]], len(use)
    maps[:, own], maps[:, hidden + own] = values, opened
    block.ff.net[0].proj.weight.copy_(maps[:-1].T)
    block.ff.net[0].proj.bias.copy_(maps[-1])
    # Latents from the products, and where they are written.
    units, *_ = last(data, "units")
    x = with_one(units[..., own])
    sums = least_squares((x * weight).flatten(0, 1), (data.clean * on[..., None] * weight).flatten(0, 1), 1e-3)
    print(f"products leave {((x @ sums - data.clean)[sure]).square().mean():.3f} of the objects' latents")
    scale = (x @ sums)[on].std(0)
    groups = unet.conv_norm_out.num_groups
    per = unet.conv_norm_out.num_channels // groups
    strength = features.permute(0, 2, 3, 1).flatten(0, 2).std(0) * unet.conv_out.weight.square().sum((0, 2, 3)).sqrt()
    weakest = strength.view(groups, per).square().sum(1).argsort()
    count = data.clean.shape[-1]
    channels = torch.stack([weakest[2 * i // per] * per + 2 * i % per for i in range(count)])
    pairs = torch.zeros(unet.conv_norm_out.num_channels, count)
    pairs[channels, torch.arange(count)], pairs[channels + 1, torch.arange(count)] = 1, -1
    height = WRITTEN * data.h.std((0, 2, 3)).mean()
    there = torch.linalg.pinv(transformer.proj_out.weight, rtol=0.05) @ pairs * height
    block.ff.net[2].weight[:, own] = there @ (sums[:-1] / scale).T
    features, *_ = last(data, "features")
    patches = with_one(torch.nn.functional.unfold(features, 3, padding=1).mT).flatten(0, 1)
    solved = least_squares(patches, data.target.flatten(2).mT.flatten(0, 1), RIDGE)
    unet.conv_out.weight.copy_(solved[:-1].T.reshape(unet.conv_out.weight.shape))
    unet.conv_out.bias.copy_(solved[-1])
    answer, right = last(data)
    report("after", data, answer, on, sure, right)


def report(name, data, answer, on, sure, right):
    error = (answer - data.target).square().mean(1).flatten(1)
    first = data.t == walkers.FIRST
    later = [f"{error[data.t == t].mean():.3f}" for t in (749, 499, 249)]
    print(f"{name}: first {error[first].mean():.3f}, at objects {error[first][on[first]].mean():.3f}, where all is said "
          f"{error[first][sure[first]].mean():.3f}; later {' '.join(later)}; looks right {right:.1%}")


def main():
    solved.run(__doc__, "product.pt", change)


if __name__ == "__main__":
    main()
