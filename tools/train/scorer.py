"""Trains the judge of pictures: object, style, colour, place.

    tools/train/scorer [--until HH:MM]

It sees renders only, some blurred or noisy so that it judges what is drawn and not how cleanly; it is in no loss and no
choice of a checkpoint of the generator.
"""

import numpy as np
import torch
from torch import nn

import checkpoint
import scenes
import settings

ARRANGEMENTS = len(scenes.PLACES) + len(scenes.PAIRS)


class Scorer(nn.Module):
    """A small convolutional network with one answer per question.

    The first object of a pair is the left or the upper one; "no second object" is one of the answers.
    """

    def __init__(self, s, concepts):
        super().__init__()
        widths = s.scorer.channels
        layers, before = [], 3
        for i, width in enumerate(widths):
            layers += [nn.Conv2d(before, width, 5 if i == 0 else 3, stride=2, padding=2 if i == 0 else 1, bias=False),
                       nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False) if i else
                       nn.Identity(), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.body = nn.Sequential(*layers)
        side = s.picture // 2 ** len(widths)
        self.middle = nn.Sequential(nn.Flatten(), nn.Linear(before * side * side, 512), nn.ReLU())
        self.heads = nn.ModuleDict({
            "first": nn.Linear(512, concepts), "second": nn.Linear(512, concepts + 1),
            "style": nn.Linear(512, len(scenes.STYLES)), "colour": nn.Linear(512, len(scenes.COLOURS)),
            "place": nn.Linear(512, ARRANGEMENTS), "size": nn.Linear(512, len(scenes.SIZES))})

    def forward(self, pictures):
        found = self.middle(self.body(pictures))
        return {name: head(found) for name, head in self.heads.items()}


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
    share = torch.rand(n, 1, 1, 1, generator=generator) * (torch.rand(n, 1, 1, 1, generator=generator) < 0.5)
    out = pictures + share * (soft - pictures)
    strength = 0.1 * torch.rand(n, 1, 1, 1, generator=generator)
    return out + strength * torch.randn(out.shape, generator=generator)


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
        generator = torch.Generator().manual_seed(run.step)
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
