"""Measures the exported model against its bars.

    tools/train/evaluate [--model models/pocket-turbo] [--count 1000]

Prompts are of held-out combinations and say everything; prompt number i has seed i. The scorer judges the objects, the
median of the outermost pixels the background.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline

import colours
import device
import prompts
import scenes
import scorer
import settings

BATCH = 50
BARS = {("object", 4): 0.90, ("object", 1): 0.85, ("background", 4): 0.95, ("background", 1): 0.95,
        ("both of two", 4): 0.70, ("both of two", 1): 0.70}


DECIBELS = "PSNR to the true picture"


def load(path):
    # The scheduler counts with NumPy, which sees the processor's memory alone.
    with torch.device("cpu"):
        found = StableDiffusionXLPipeline.from_pretrained(path, torch_dtype=torch.float32)
    found.to(torch.get_default_device())
    found.set_progress_bar_config(disable=True)
    return found


def draw(pipeline, texts, seeds, steps):
    """Pictures as bytes `[n, height, width, 3]`."""
    found = []
    for i in range(0, len(texts), BATCH):
        generators = [device.generator(int(seed)) for seed in seeds[i:i + BATCH]]
        out = pipeline(list(texts[i:i + BATCH]), num_inference_steps=steps, guidance_scale=0.0,
                       generator=generators, output_type="np").images
        found.append((out * 255).round().astype(np.uint8))
    return np.concatenate(found)


def ground(picture):
    """The named colour of the outermost pixels."""
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return colours.nearest(np.median(edge, axis=0))


def judged(judge, pictures):
    found = [judge(scenes.tensor(pictures[i:i + 128])) for i in range(0, len(pictures), 128)]
    return {name: torch.cat([f[name] for f in found]).argmax(-1).cpu().numpy() for name in found[0]}


def measure(s, world, judge, pipeline, steps):
    """Right answers by name, on pictures of one object and of two."""
    rng = np.random.default_rng(11)
    rows = {}
    for pair, count in ((False, s.count), (True, s.count * 3 // 10)):
        found = [world.scene(i, held_out=True, pair=pair) for i in range(100_000, 100_000 + count)]
        texts = [prompts.sentence(world, scene, rng, leave_open=0, plain=True).text for scene in found]
        pictures = draw(pipeline, texts, range(count), steps)
        said = judged(judge, pictures)
        hits = {name: said[name] == np.array(wanted)
                for name, wanted in scorer.answers(found, len(world.concepts)).items()}
        grounds = np.array([ground(p) == scene.colour for p, scene in zip(pictures, found)])
        if pair:
            rows["both of two"] = (hits["first"] & hits["second"]).mean()
            rows["background of two"] = grounds.mean()
        else:
            rows |= {"object": hits["first"].mean(), "background": grounds.mean(), "style": hits["style"].mean(),
                     "place": hits["place"].mean(), "size": hits["size"].mean(),
                     DECIBELS: decibels(pictures, [world.render(scene) for scene in found])}
    return rows


def decibels(pictures, true):
    """The mean over all pictures."""
    apart = (pictures.astype(np.float32) - np.stack(true)) / 255
    return -10 * np.log10(np.square(apart).mean((1, 2, 3))).mean()


def seeds(world, pipeline, steps, count=64):
    """Mean difference between two seeds of a prompt that says one word, over that of one that says all."""
    rng = np.random.default_rng(12)
    found = [world.scene(i, held_out=True, pair=False) for i in range(200_000, 200_000 + count)]
    full = [prompts.sentence(world, scene, rng, leave_open=0, plain=True).text for scene in found]
    bare = [prompts.sentence(world, scene, rng, leave_open=1, plain=True).text for scene in found]
    apart = []
    for texts in (bare, full):
        a, b = (draw(pipeline, texts, range(k * 1000, k * 1000 + count), steps).astype(np.float32) for k in (1, 2))
        apart.append(np.abs(a - b).mean())
    return apart


def main():
    s = settings.read(__doc__, model=(Path, settings.ROOT / "models" / "pocket-turbo"), count=(int, 1000),
                      steps=(int, 0))
    settings.torch_up(s)
    world = scenes.World(s)
    judge = scorer.load(s, len(world.concepts))
    pipeline = load(s.model)
    several = [s.steps] if s.steps else [1, 4]
    rows = {steps: measure(s, world, judge, pipeline, steps) for steps in several}
    print("| | " + " | ".join(f"{n} step{'s' * (n > 1)}" for n in several) + " | bar |")
    print("|---|" + "---:|" * (len(several) + 1))
    for name in rows[several[0]]:
        bar = " / ".join(f"{BARS[name, n]:.0%}" for n in several if (name, n) in BARS) or "–"
        form = "{:.1f} dB" if name == DECIBELS else "{:.1%}"
        print(f"| {name} | " + " | ".join(form.format(rows[n][name]) for n in several) + f" | {bar} |")
    ratios = {n: seeds(world, pipeline, n) for n in several}
    print("| difference of two seeds, bare over full prompt | "
          + " | ".join(f"{a:.1f} / {b:.1f} = {a / b:.1f}" for a, b in ratios.values()) + " | 5 |")


if __name__ == "__main__":
    main()
