"""Registers: positions behind the words of the first text encoder, and what they hold.

The encoder is made (`text`) to hold the objects' latents there, a square piece of an object at each position: so to
draw an object, the UNet need only look at the piece that belongs where it stands, which is the same for all objects.
The first numbers of a register's state are the piece in every style: its latents on gray, and what a lighter ground
adds. The last ones are flags for the piece's row, column and size, and for what the sentence says. The second object
of a pair, always small, has the upper left registers of the large one, under the names of small pieces but for the
last flag.
"""

import numpy as np
import torch

import basis
import device
import scenes

# The position of the first register. A sentence with more tokens than this would run into them.
FIRST = 25
# A picture is this many pieces wide.
ACROSS = 8
# What a lighter ground adds is weighed so, since grounds are seldom black or white.
LIGHTER = 0.6
# Half of a mask's components are enough, since there are no colours in it.
MASK = 0.5
# The height of flags: the pieces' numbers deviate by somewhat less than 1.
FLAG = 2.0


class Registers:
    """What registers hold for scenes and their sentences."""

    def __init__(self, s, world):
        self.sides = [(s.sprites[size] + 2 * s.margin) * ACROSS // s.picture for size in scenes.SIZES]
        small, large = drawn(s, world, self.sides)
        self.single = torch.cat([small, large], 1)
        self.small = small
        self.count, self.content = self.single.shape[1:]
        names = [named(self.sides, size) for size in range(2)]
        # By whether there are two.
        self.names = torch.cat(names).repeat(2, 1, 1)
        self.names[1, self.corner(), :-1] = names[0][:, :-1]
        # Each question has one more answer: that the sentence does not say it, or that there is no pair.
        self.answers = [1 + len(options) for options in
                        (scenes.COLOURS, scenes.STYLES, scenes.SIZES, scenes.PLACES, scenes.PAIRS)]
        self.flags = self.names.shape[-1] + sum(self.answers)
        self.width = s.unet.text_width

    def corner(self):
        """The registers of the second object."""
        small, large = self.sides
        return [small * small + i * large + j for i in range(small) for j in range(small)]

    def contents(self, found):
        """`[scene, register, number]`."""
        contents = self.single[torch.tensor([scene.objects[0] for scene in found])]
        for content, scene in zip(contents, found):
            if scene.is_pair:
                content[self.corner()] = self.small[scene.objects[1]]
        return contents

    def owners(self, found):
        """`[scene, register]`: the object that a register speaks of."""
        rows = torch.tensor([[scene.objects[0]] * self.count for scene in found])
        rows[:, self.corner()] = torch.tensor([scene.objects[-1] for scene in found])[:, None]
        return rows

    def said(self, found, prompts):
        """`[scene, flag]` of what the sentences say."""
        rows = []
        for scene, prompt in zip(found, prompts):
            one = not scene.is_pair
            known = [(scene.colour, prompt.colour), (scene.style, prompt.style), (scene.size, prompt.size and one),
                     (scene.place, prompt.place and one), (scene.place, not one)]
            rows.append(np.concatenate([np.eye(count)[value if is_known else count - 1]
                                        for count, (value, is_known) in zip(self.answers, known)]))
        return FLAG * device.array(np.stack(rows)).float()


def drawn(s, world, sides):
    """For each size, `[concept, piece, number]` of the objects in all styles."""
    latents, grays, masks = basis.Basis(s), {}, {}
    for size in range(len(sides)):
        for style in range(len(scenes.STYLES)):
            black, gray, white = (cut(latents.encode(scenes.tensor(grounded(world, size, style, level))), sides[size])
                                  for level in (0, 128, 255))
            grays[size, style], masks[size, style] = gray, LIGHTER * (white - black) / 2
    every = torch.cat([mask.flatten(0, 1) for mask in masks.values()])
    components = torch.linalg.eigh(every.T @ every)[1][:, -int(MASK * every.shape[1]):]
    return [torch.cat([part for style in range(len(scenes.STYLES))
                       for part in (grays[size, style], masks[size, style] @ components)], -1)
            for size in range(len(sides))]


def grounded(world, size, style, level):
    """All objects with their margins on a ground of one level."""
    sprites = world.sprites[size][:, style]
    side = sprites.shape[1] + 2 * world.margin
    found = np.full((len(sprites), side, side, 3), level, np.uint8)
    for picture, sprite in zip(found, sprites):
        scenes.paste(picture, sprite, world.margin, world.margin)
    return found


def cut(latents, side):
    """`[n, channel, height, width]` → `[n, piece, number]`."""
    n, channels, height, _ = latents.shape
    fine = height // side
    return latents.reshape(n, channels, side, fine, side, fine).permute(0, 2, 4, 1, 3, 5).reshape(n, side * side, -1)


def named(sides, size):
    """`[piece, flag]` of one size: row, column and, in the last one, that it is large."""
    side = sides[size]
    rows = torch.zeros(side * side, 2 * sum(sides) + 1)
    start, piece = 2 * sides[0] * size, torch.arange(side * side)
    rows[piece, start + piece // side] = rows[piece, start + side + piece % side] = FLAG
    rows[:, -1] = FLAG * size
    return rows
