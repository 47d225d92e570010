"""Draws the contact sheet: 64 prompts as people type them, seeds 0 to 63, one and four steps.

    tools/train/sheet [--model models/pocket-turbo] [--to models/pocket-turbo/sheet.png]
"""

from pathlib import Path

import numpy as np
from PIL import Image

import evaluate
import settings

PROMPTS = """a red apple on a blue background; a cat; a small fox on a yellow background, flat style; a pizza;
a dog next to a cat on a green background; a penguin on a white background; a banana on a black background;
a big elephant on a pink background, 3d style; an owl; a cup of coffee on an orange background;
a strawberry on a white background; a tiger on a purple background; a burger and fries on a red background;
a frog on a yellow background; a sunflower on a blue background; a shark on a white background; a panda, flat style;
a watermelon on a green background; a tiny bee on a pink background; a donut, 3d style; a lion above a mushroom;
a rose on a black background; a turtle on an orange background; an octopus on a blue background; a koala;
a carrot on a gray background; a rabbit next to a carrot on a white background; a pig on a green background;
a large whale on a yellow background; an ice cream cone on a pink background; a snail at the bottom; a horse;
a bear on the left on a blue background; a honey pot; a bottle of champagne on a purple background; a cherry;
a monkey next to a banana; a crab on a yellow background; a lemon on a blue background; a chicken; a tree;
a cactus on an orange background; a birthday cake on a white background; a glass of wine on a gray background;
a unicorn on a pink background; a bat on a purple background; a dragon on a black background, 3d style; sushi;
a small butterfly at the top on a white background; a pineapple on a red background; a mouse and a piece of cheese;
a wolf on a gray background; a lobster on a blue background; an avocado on a yellow background, flat style;
a flamingo on a green background; a zebra on a red background; a bowl of noodles; a pear on a purple background;
a swan on a blue background; a spider on a white background; a cow on a green background, flat style; bubble tea;
a croissant on a blue background; a cookie on the right on a green background""".replace("\n", " ").split("; ")
GAP = 2


def main():
    home = settings.ROOT / "models" / "pocket-turbo"
    s = settings.read(__doc__, model=(Path, home), to=(Path, home / "sheet.png"))
    settings.torch_up(s)
    assert len(PROMPTS) == 64
    pipeline = evaluate.load(s.model)
    halves = []
    for steps in (1, 4):
        pictures = evaluate.draw(pipeline, PROMPTS, range(64), steps)
        pictures = np.pad(pictures, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
        rows = [np.concatenate(list(pictures[i:i + 8]), 1) for i in range(0, 64, 8)]
        halves.append(np.concatenate(rows))
    between = np.full((halves[0].shape[0], 10, 3), 255, np.uint8)
    Image.fromarray(np.concatenate([halves[0], between, halves[1]], 1)).save(s.to, optimize=True)
    print(s.to, "one step on the left, four on the right")


if __name__ == "__main__":
    main()
