"""Opens a way from what is read off the noise to where the last block has what the sentence says.

    tools/train/gate [--source unet.pt] [--to gated.pt]

`reading` puts the style and the ground that the noise decides on into the last block of the UNet. They are to count
where the sentence leaves them open, and to be nothing elsewhere. A product of two things is slow to be found, but a
GEGLU is one: so in the first transformer of that block

- the attention to the sentence brings whether style and ground are open to two numbers of the stream,
- four units have what is read for values and these numbers for gates,
- their results pass to the second transformer and move its stream to where a sentence that says the same moves it.

The stream keeps ten numbers for this, the least used ones, and nothing else reads or writes them. Other weights stay;
`unet` trains all of them further from there.
"""

import numpy as np
import torch

import coupling
import device
import prompts
import reading
import solved
import walkers

# Samples, each of one step, and the part of them that leaves a thing open.
SAMPLES, BATCH, OPEN = 384, 64, 0.5
# How far gates are open or closed at nearly all places.
FAR, NEARLY = 4.0, 0.98
# First channels of two groups before the last transformer that are missed least, and what steadies their normalisation.
LEAST, STEADY = (32, 64), 2.0


class Samples:
    """Inputs and targets of the first step, and what their sentences leave open."""

    def __init__(self, s, world, wanted, latents, drawer, tower, tokenizer):
        self.drawer, self.batches = drawer, []
        s.unet.batch = BATCH
        asked, shown = [], []
        for start in range(0, SAMPLES, BATCH):
            group = walkers.Walkers(s, world, wanted, latents, drawer, tower, tokenizer, start, {1: 1.0})
            group.begin(5_000_000 + start, 1, start)
            self.batches.append((*group.now(), group.context, group.pooled))
            asked += group.asked
            shown += group.shown
        scenes_shown, grounds = zip(*shown)
        self.open = torch.tensor([[not prompt.style, not prompt.colour] for _, prompt in asked])
        self.says_all = ~self.open.any(1)
        style = torch.tensor([1.0 - 2 * scene.style for scene in scenes_shown])
        ground = (device.array(np.array(grounds, np.float32)) - coupling.GRAY) / coupling.FAR
        self.code = torch.cat([style[:, None], ground], 1)
        # Each number of the code with what it belongs to.
        self.kind = [0] + [1] * reading.GROUND

    @torch.no_grad()
    def __call__(self, *modules):
        """Inputs of modules over all samples, and the errors by what is left open."""
        found, errors = {module: [] for module in modules}, []
        hooks = [module.register_forward_pre_hook(lambda m, given: found[m].append(given[0])) for module in modules]
        for x, t, target, context, pooled in self.batches:
            v = self.drawer(x.contiguous(memory_format=torch.channels_last), t, context, pooled)
            errors.append((v - target).square().mean((1, 2, 3)))
        for hook in hooks:
            hook.remove()
        errors = torch.cat(errors)
        style, ground = self.open.T
        for name, some in (("all said", self.says_all), ("style open", style & ~ground),
                           ("ground open", ground & ~style), ("both open", ground & style)):
            print(f"{name} {errors[some].mean():.3f}", end="  ")
        print()
        return [torch.cat(found[module]) for module in modules]


class Way:
    """The transformers of the last block."""

    def __init__(self, s, wanted, unet, samples):
        self.samples, self.known = samples, reading.Reading(unet)
        self.last = unet.up_blocks[-1]
        self.one, self.two = self.last.attentions
        self.block, self.after = (transformer.transformer_blocks[0] for transformer in self.last.attentions)
        # Flags of the sentence that say that a thing is not said: the last answer of its question.
        start = wanted.width - sum(wanted.answers)
        self.flags = [start + sum(wanted.answers[:2]) - 1, start + wanted.answers[0] - 1]
        self.count = len(samples.kind)

    @torch.no_grad()
    def open(self):
        stream, = self.samples(self.after.norm3)
        moves = self.moves(stream)
        read, told, given = self.numbers()
        self.bring(read, told)
        self.multiply(read, told, given)
        self.pass_on(given, moves)
        self.samples()

    def moves(self, stream):
        """Where what a sentence says moves the stream of the second transformer: `[number, width]`."""
        samples = self.samples
        code = torch.cat([samples.code, torch.ones(len(samples.code), 1)], 1)[samples.says_all]
        return torch.linalg.lstsq(code, stream[samples.says_all].mean(1)).solution[:-1]

    def numbers(self):
        """Makes room in the stream of the first transformer."""
        block, one = self.block, self.one
        stream, = self.samples(block.norm3)
        self.deviation = stream.std()
        asked = block.ff.net[0].proj.weight.norm(dim=0) * block.norm3.weight.abs() / len(block.norm3.weight) ** 0.5
        use = stream.flatten(0, 1).std(0) * (asked + one.proj_out.weight.norm(dim=0))
        kept = use.argsort()[:2 * self.count + len(self.flags)]
        for linear in (one.proj_in, block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]):
            linear.weight[kept], linear.bias[kept] = 0, 0
        for linear in (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v, block.attn2.to_q, block.ff.net[0].proj,
                       one.proj_out):
            linear.weight[:, kept] = 0
        for norm in (block.norm1, block.norm2, block.norm3):
            norm.weight[kept], norm.bias[kept] = 1, 0
        return kept.split([self.count, len(self.flags), self.count])

    def bring(self, read, told):
        """What is read, and whether it is open, into the stream of the first transformer."""
        first = self.known.told
        self.one.norm.weight[first:], self.one.norm.bias[first:] = 1, 0
        self.one.proj_in.weight[:, first:] = 0
        for i, number in enumerate(read):
            self.one.proj_in.weight[number, first + 2 * i] = self.deviation / 2
            self.one.proj_in.weight[number, first + 2 * i + 1] = -self.deviation / 2
        values, out = self.block.attn2.to_v.weight, self.block.attn2.to_out[0].weight
        weakest = (values.norm(dim=1) * out.norm(dim=0)).argsort()[:len(self.flags)]
        values[weakest], out[:, weakest] = 0, 0
        for row, flag, number in zip(weakest, self.flags, told):
            values[row, flag] = 1
            out[number, row] = self.deviation

    def multiply(self, read, told, given):
        """Units whose gates are open where a thing is open."""
        into, out, samples = self.block.ff.net[0].proj, self.block.ff.net[2], self.samples
        units, normal = samples(out, into)
        hidden = units.shape[-1]
        own = (units.flatten(0, 1).std(0) * out.weight.norm(dim=0)).argsort()[:self.count]
        out.weight[:, own] = 0
        for value, number, kind in zip(own.tolist(), read, samples.kind):
            gate = int(hidden + value)
            is_open, asks = samples.open[:, kind], normal[..., told[kind]]
            low, high = asks[~is_open].quantile(NEARLY), asks[is_open].quantile(1 - NEARLY)
            into.weight[[value, gate]], into.bias[value] = 0, 0
            into.weight[value, number] = 1
            into.weight[gate, told[kind]] = 2 * FAR / (high - low)
            into.bias[gate] = -FAR * (high + low) / (high - low)
        units, = samples(out)
        for unit, number, strength in zip(own, given, self.strengths(units[..., own])):
            out.weight[number, unit] = 1 / strength

    def strengths(self, found):
        """How large numbers `[sample, place, number]` are beside the code where it is open."""
        code = (self.samples.code * self.samples.open[:, self.samples.kind])[:, None]
        return (found * code).mean((0, 1)) / code.square().mean((0, 1))

    def pass_on(self, given, moves):
        """From the first transformer through the residual block behind it to the stream of the second."""
        size, one, two, before = self.known.size, self.one, self.two, self.last.resnets[1]
        start = self.known.told - size
        reading.clear(slice(start, start + size), self.last.resnets[0].conv2, self.last.resnets[0].conv_shortcut,
                      one.proj_out)
        ends = []
        for first in LEAST:
            group = slice(first, first + size)
            reading.clear(group, before.conv2, before.conv_shortcut)
            two.norm.weight[group], two.norm.bias[group], two.proj_in.weight[:, group] = 1, 0, 0
            before.conv_shortcut.bias[group] = STEADY * torch.tensor([1.0, -1.0] * (size // 2))
            # Style alone in the first group, the ground in the second.
            ends += range(first, first + 2 * (1 if first == LEAST[0] else reading.GROUND), 2)
        for i, (number, end) in enumerate(zip(given, ends)):
            both = start + 2 * i
            for side, sign in enumerate((1, -1)):
                one.proj_out.weight[both + side, number] = sign
                before.conv_shortcut.bias[end + side] = 0
                before.conv_shortcut.weight[end + side, both], before.conv_shortcut.weight[end + side, both + 1] = (
                    sign / 2, -sign / 2)
        arrived, = self.samples(two.proj_in)
        for end, move, strength in zip(ends, moves, self.strengths(arrived[..., ends])):
            two.proj_in.weight[:, end], two.proj_in.weight[:, end + 1] = move / strength / 2, -move / strength / 2


def change(s, world, wanted, latents, drawer, tower, tokenizer):
    prompts.OPEN = OPEN
    reading.Reading(drawer.unet).keep()
    Way(s, wanted, drawer.unet, Samples(s, world, wanted, latents, drawer, tower, tokenizer)).open()


def main():
    solved.run(__doc__, "gated.pt", change)


if __name__ == "__main__":
    main()
