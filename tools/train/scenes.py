"""Scenes: what is in a picture, which pictures are held out, and how they are drawn.

A scene is decided by its index alone. Objects stand where a step of eight pixels leads from one place to another, so a
moved object has moved latents.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from colours import NAMES as COLOURS
from colours import VALUES

STYLES = ("3d", "flat")
SIZES = ("small", "large")
PLACES = ("centre", "left", "right", "top", "bottom")
PAIRS = ("beside", "above")
TWO = 0.3
HELD_OUT = 10


@dataclass(frozen=True)
class Scene:
    """Indices of all attributes."""

    objects: tuple
    style: int
    colour: int
    size: int
    place: int

    @property
    def is_pair(self):
        return len(self.objects) == 2

    def held_out(self):
        """One in ten combinations of object, style, colour and place is never in training."""
        key = f"{self.objects}/{self.style}/{self.colour}/{self.place}"
        return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT == 0


class World:
    """The sprites, and the scenes made of them."""

    def __init__(self, settings):
        self.picture, self.margin = settings.picture, settings.margin
        with np.load(settings.work / "sprites.npz") as arrays:
            self.sprites = [arrays[size] for size in SIZES]
        self.concepts = json.loads((settings.work / "concepts.json").read_text())

    def draw(self, rng):
        """Any scene, all concepts equally likely."""
        pair = rng.random() < TWO
        objects = rng.choice(len(self.concepts), 2 if pair else 1, replace=False)
        return Scene(tuple(int(o) for o in objects), int(rng.integers(len(STYLES))),
                     int(rng.integers(len(COLOURS))), 0 if pair else int(rng.integers(len(SIZES))),
                     int(rng.integers(len(PAIRS if pair else PLACES))))

    def scene(self, index, held_out=False, pair=None):
        """The scene of an index among those of training, or among those held out."""
        rng = np.random.default_rng([index, int(held_out), 0 if pair is None else 1 + int(pair)])
        while True:
            scene = self.draw(rng)
            if scene.held_out() == held_out and pair in (None, scene.is_pair):
                return scene

    def corners(self, scene):
        """The upper left corner of each object."""
        side = self.sprites[scene.size].shape[2]
        near, far = self.margin, self.picture - side - self.margin
        middle = (near + far) // 2
        if scene.is_pair:
            across = [(near, middle), (far, middle)]
            return across if PAIRS[scene.place] == "beside" else [(y, x) for x, y in across]
        return [{"centre": (middle, middle), "left": (near, middle), "right": (far, middle),
                 "top": (middle, near), "bottom": (middle, far)}[PLACES[scene.place]]]

    def render(self, scene, ground=None):
        """`[height, width, RGB]` bytes; another ground (RGB) than the scene's may be given."""
        out = np.empty((self.picture, self.picture, 3), np.uint8)
        out[:] = VALUES[scene.colour] if ground is None else ground
        for concept, (x, y) in zip(scene.objects, self.corners(scene)):
            paste(out, self.sprites[scene.size][concept, scene.style], x, y)
        return out


def paste(out, sprite, x, y):
    """Puts a sprite, multiplied by its alpha, over a part of the picture."""
    height, width = sprite.shape[:2]
    below = out[y:y + height, x:x + width]
    rest = 255 - sprite[..., 3:].astype(np.uint16)
    below[:] = np.minimum(sprite[..., :3] + (below * rest + 127) // 255, 255)


def tensor(pictures):
    """Bytes `[n, height, width, 3]` → numbers from −1 to 1, `[n, 3, height, width]`."""
    import device

    planes = device.array(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)))
    return planes.float() / 127.5 - 1
