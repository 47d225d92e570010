"""The named colours: of backgrounds, and of objects that have one."""

import numpy as np

BACKGROUNDS = {
    "white": (245, 245, 245), "black": (24, 24, 28), "gray": (128, 130, 134), "red": (214, 40, 48),
    "orange": (245, 140, 30), "yellow": (252, 214, 64), "green": (60, 160, 74), "blue": (44, 98, 220),
    "purple": (128, 62, 178), "pink": (248, 158, 196),
}
NAMES = tuple(BACKGROUNDS)
VALUES = np.array(list(BACKGROUNDS.values()), np.float32)
# Objects may be brown, backgrounds are not.
OBJECTS = {**BACKGROUNDS, "brown": (130, 84, 50), "light brown": (190, 130, 80)}


def nearest(rgb):
    """The index of the named background that is nearest to a colour."""
    return int(((VALUES - np.asarray(rgb, np.float32)) ** 2).sum(-1).argmin())


def main(styles):
    """The colour of at least 60 % of an object's pixels in all its styles, or nothing."""
    names, values = list(OBJECTS), np.array(list(OBJECTS.values()), np.float32)
    found = set()
    for sprite in styles:
        solid = sprite[sprite[..., 3] > 200].astype(np.float32)[:, :3]
        index = ((values[None] - solid[:, None]) ** 2).sum(-1).argmin(-1)
        counts = np.bincount(index, minlength=len(names))
        best = int(counts.argmax())
        found.add(names[best].replace("light ", "") if counts[best] >= 0.6 * len(solid) else None)
    only = found.pop() if len(found) == 1 else None
    return None if only in ("gray", "black", "white") else only
