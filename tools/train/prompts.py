"""Sentences for scenes. They may leave colour and style open, and not say that a thing is large or in the middle."""

from dataclasses import dataclass

from colours import NAMES as COLOURS
from concepts import with_article
from scenes import PAIRS, PLACES, SIZES, STYLES

OPEN = 0.35
BEFORE = ("a picture of ", "a drawing of ", "a sticker of ", "an emoji of ", "an illustration of ", "an icon of ")
STYLE_WORDS = {"3d": ("3d style", "in 3d style", "3d render", "3d"),
               "flat": ("flat style", "in flat style", "flat design", "flat")}
SIZE_WORDS = {"small": ("small", "small", "little", "tiny"), "large": ("large", "large", "big", "huge")}
PLACE_WORDS = {"centre": ("in the middle", "in the center", "in the centre"),
               "left": ("on the left", "on the left side", "at the left"),
               "right": ("on the right", "on the right side", "at the right"),
               "top": ("at the top", "near the top", "on top"), "bottom": ("at the bottom", "near the bottom")}
PAIR_WORDS = {"beside": ("next to", "beside", "and", "to the left of"), "above": ("above", "over", "on top of")}
GROUND = ("on a {} background", "on a {} background", "with a {} background", "against a {} background", "on {}")


@dataclass(frozen=True)
class Prompt:
    """A sentence, its phrases for the objects, and what it says; an attribute not named is `False`."""

    text: str
    names: tuple
    colour: bool
    style: bool
    size: bool
    place: bool


def pick(rng, options):
    return options[rng.integers(len(options))]


def thing(world, rng, concept, size, plain):
    """An object with its article, by its first name more often than by another one."""
    about = world.concepts[concept]
    name = about["names"][0] if plain or rng.random() < 0.6 else pick(rng, about["names"])
    words = [size] if size else []
    if about["colour"] and not plain and rng.random() < 0.25 and not name.startswith(about["colour"]):
        words.append(about["colour"])
    return with_article(words, name)


def sentence(world, scene, rng, leave_open=OPEN, plain=False):
    """A sentence for a scene; `plain` ones are the form of the evaluation."""
    says = {key: rng.random() >= leave_open for key in ("colour", "style", "size", "place")}
    says["size"] |= SIZES[scene.size] == "small"
    says["place"] |= PLACES[scene.place] != "centre"
    choose = (lambda options: options[0]) if plain else (lambda options: pick(rng, options))
    if scene.is_pair:
        says["size"] = says["place"] = True
        first, second = (thing(world, rng, c, None, plain) for c in scene.objects)
        names = (first, second)
        subject = f"{first} {choose(PAIR_WORDS[PAIRS[scene.place]])} {second}"
    else:
        size = choose(SIZE_WORDS[SIZES[scene.size]]) if says["size"] else None
        subject = thing(world, rng, scene.objects[0], size, plain)
        names = (subject,)
        if says["place"]:
            subject += " " + choose(PLACE_WORDS[PLACES[scene.place]])
    colour, style = COLOURS[scene.colour], STYLES[scene.style]
    if not plain and rng.random() < 0.2:
        subject = pick(rng, BEFORE) + subject
    ground = f" {choose(GROUND).format(colour)}" if says["colour"] else ""
    if says["colour"] and not plain and rng.random() < 0.1:
        ground = f", {colour} background"
    ending = f", {choose(STYLE_WORDS[style])}" if says["style"] else ""
    return Prompt(subject + ground + ending, names, **says)


def vocabulary_corpus(world, count):
    """Sentences to learn a vocabulary from."""
    import numpy as np

    rng = np.random.default_rng(5)
    return [sentence(world, world.scene(i), rng).text for i in range(count)]
