"""Trains the judge of pictures: object, style, colour, place.

    tools/train/scorer [--until HH:MM]

It sees renders only, some blurred or noisy so that it judges what is drawn and not how cleanly; it is in no loss and no
choice of a checkpoint of the generator.
"""

import numpy as np
import torch
from torch import nn

import checkpoint
import device
import scenes
import settings

ARRANGEMENTS = len(scenes.PLACES) + len(scenes.PAIRS)


class Scorer(nn.Module):
    """A small convolutional network with one answer per question.

    The first object of a pair is the left or the upper one; "no second object" is one of the answers.
    """

    def __init__(self, s, concepts):
        super().__init__()
        layers, before = [], 3
        for level, width in enumerate(s.scorer.channels):
            layers += normalized(before, width, kernel=3 if level else 5, stride=2)
            if level:
                layers += normalized(width, width, kernel=3, stride=1)
            before = width
        self.body = nn.Sequential(*layers)
        side, hidden = s.picture // 2 ** len(s.scorer.channels), s.scorer.hidden
        self.middle = nn.Sequential(nn.Conv2d(before, hidden, side), nn.ReLU(), nn.Flatten())
        self.heads = nn.ModuleDict({
            "first": nn.Linear(hidden, concepts), "second": nn.Linear(hidden, concepts + 1),
            "style": nn.Linear(hidden, len(scenes.STYLES)), "colour": nn.Linear(hidden, len(scenes.COLOURS)),
            "place": nn.Linear(hidden, ARRANGEMENTS), "size": nn.Linear(hidden, len(scenes.SIZES))})

    def forward(self, pictures):
        found = self.middle(self.body(pictures))
        return {name: head(found) for name, head in self.heads.items()}


def normalized(inputs, outputs, kernel, stride):
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def layers(model):
    """Convolutions with the normalisations behind them, and all other layers, by their names in files."""
    pairs = list(zip(*(filter(lambda layer, kind=kind: isinstance(layer, kind), model.body)
                       for kind in (nn.Conv2d, nn.BatchNorm2d))))
    return ({f"body.{i}": pair for i, pair in enumerate(pairs)},
            {"middle": model.middle[0], **model.heads})


@torch.no_grad()
def folded(model):
    """Its tensors as files have them: each normalisation is part of the convolution before it."""
    pairs, others = layers(model)
    whole = {name: nn.utils.fuse_conv_bn_eval(*pair) for name, pair in pairs.items()} | others
    return {f"{name}.{part}": tensor.half().contiguous()
            for name, layer in whole.items() for part, tensor in (("weight", layer.weight), ("bias", layer.bias))}


@torch.no_grad()
def unfold(model, tensors):
    """Puts a file's tensors into a model that is not trained."""
    pairs, others = layers(model)
    for name, (conv, norm) in pairs.items():
        conv.weight.copy_(tensors[f"{name}.weight"])
        norm.bias.copy_(tensors[f"{name}.bias"])
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
    for name, layer in others.items():
        layer.weight.copy_(tensors[f"{name}.weight"])
        layer.bias.copy_(tensors[f"{name}.bias"])


def answers(found, concepts):
    """The right answer to every question, for each scene."""
    pair = [scene.is_pair for scene in found]
    return {
        "first": [scene.objects[0] for scene in found],
        "second": [scene.objects[1] if p else concepts for scene, p in zip(found, pair)],
        "style": [scene.style for scene in found], "colour": [scene.colour for scene in found],
        "place": [scene.place + (len(scenes.PLACES) if p else 0) for scene, p in zip(found, pair)],
        "size": [scene.size for scene in found]}


def worsened(pictures, generator):
    """Half of the pictures with some blur, noise and change of brightness."""
    n = len(pictures)
    soft = nn.functional.avg_pool2d(nn.functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = device.uniform(n, 1, 1, 1, by=generator) * (device.uniform(n, 1, 1, 1, by=generator) < 0.5)
    out = pictures + share * (soft - pictures)
    strength = 0.1 * device.uniform(n, 1, 1, 1, by=generator)
    return out + strength * device.normal(*out.shape, by=generator)


def load(s, concepts):
    model = Scorer(s, concepts)
    checkpoint.Run(s.work / "scorer.pt", {"model": model})
    return model.eval().requires_grad_(False)


@torch.no_grad()
def check(s, model, world, count=1024):
    """Right answers on held-out renders, for pictures of one object and of two."""
    model.eval()
    concepts, right = len(world.concepts), {}
    for pair in (False, True):
        for start in range(0, count, 128):
            found = [world.scene(i, held_out=True, pair=pair) for i in range(start, start + 128)]
            said = model(scenes.tensor([world.render(scene) for scene in found]))
            for name, wanted in answers(found, concepts).items():
                hits = (said[name].argmax(-1) == torch.tensor(wanted)).float()
                right.setdefault(f"{name}, {'two' if pair else 'one'}", []).append(hits.mean().item())
    print("held out:", ", ".join(f"{name} {np.mean(hits):.1%}" for name, hits in right.items()))
    model.train()


def main():
    s = settings.read(__doc__, until=(str, None))
    settings.torch_up(s)
    world = scenes.World(s)
    torch.manual_seed(6)
    model = Scorer(s, len(world.concepts))
    optimizer = torch.optim.AdamW(model.parameters(), lr=s.scorer.rate, weight_decay=0.01)
    run = checkpoint.Run(s.work / "scorer.pt", {"model": model}, optimizer)
    run.stop_politely()
    while (done := checkpoint.part_done(run, s.scorer.samples, s.until)) < 1 and checkpoint.until(s.until) > 0:
        generator = device.generator(run.step)
        found = [world.scene(run.samples + i) for i in range(s.scorer.batch)]
        pictures = worsened(scenes.tensor([world.render(scene) for scene in found]), generator)
        rate = checkpoint.schedule(optimizer, s.scorer.rate, done, run.step)
        with settings.narrow(s):
            said = model(pictures)
        loss = sum(nn.functional.cross_entropy(said[name].float(), torch.tensor(wanted))
                   for name, wanted in answers(found, len(world.concepts)).items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.after(len(found))
        if run.step % 100 == 0:
            print(f"step {run.step} samples {run.samples} {run.seconds:.0f} s loss {loss:.3f} rate {rate:.5f}")
        if run.step % 500 == 0:
            check(s, model, world, 256)
    run.save()
    check(s, model, world)


if __name__ == "__main__":
    main()
