"""A small byte-pair vocabulary in CLIP's format, for the tiny pipelines.

All 256 bytes are in it, alone and at the end of a word, so that any prompt in any
script has tokens; the merges come from the prompts below. The order is CLIP's:
bytes, bytes with `</w>`, merges, `<|startoftext|>`, `<|endoftext|>`.
"""

import json
import re
from collections import Counter
from pathlib import Path

MERGES = 400
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
CORPUS = """
a photo of a cat sitting on a red mat in the morning light
a photograph of an old fisherman mending his net beside the harbour
a watercolour painting of a small village under snowy mountains
an oil painting of a stormy sea with a wooden sailing ship
a close up portrait of a woman with freckles, soft light, shallow depth of field
a bowl of ripe strawberries on a blue table, studio lighting
a robot reading a newspaper in a quiet coffee house
a futuristic city at night, neon signs reflected in the rain, highly detailed
an astronaut riding a white horse across the desert, cinematic
a green dragon sleeping on a mountain of golden coins, fantasy illustration
a steam locomotive crossing a stone bridge in autumn
the northern lights over a frozen lake with a lonely cabin
a black and white drawing of a lighthouse on a rocky coast
a macro shot of a bee collecting pollen from a sunflower
a still life with flowers, fruit and a silver jug, in the style of the old masters
an owl made of stained glass, sharp focus, vivid colours
a bicycle leaning against a yellow wall in the afternoon sun
a corgi wearing sunglasses on the beach, bright summer day
a misty forest with tall trees and a narrow path, early morning
a castle floating in the clouds, matte painting, dramatic sky
blurry, low quality, bad anatomy, watermark, text, worst quality, deformed hands
a plate of noodles with vegetables, top view, food photography
a child flying a kite on a windy hill, children's book illustration
an ancient library with endless shelves and a spiral staircase
three penguins walking over the ice, documentary photograph
a glass of water on a windowsill, rays of light, minimalism
a market street in the evening with paper lanterns and crowds of people
a wolf howling at the full moon, ink drawing
a sports car driving along the coast road, motion blur
the interior of a space station with plants growing everywhere
a detailed map of an imaginary island, parchment, calligraphy
a wooden chair in an empty white room, product photography
a hummingbird hovering near a purple orchid, high resolution
a medieval knight resting under an apple tree, pastel colours
a cup of coffee with latte art, bokeh, warm tones, masterpiece, best quality
"""


def letters():
    """The printable stand-ins of bytes, in the order of CLIP's vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    stand_ins = iter(range(256, 512))
    rest = {byte: chr(next(stand_ins)) for byte in range(256) if byte not in printable}
    return [chr(byte) for byte in printable] + list(rest.values())


def merges():
    return learn(Counter(re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", CORPUS)), MERGES)


def learn(words, count):
    """Merges of counted words. The most frequent pair is merged first; equals go in alphabetical order."""
    split = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    found = []
    while len(found) < count:
        pairs = Counter()
        for word, parts in split.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        found.append(best)
        for word, parts in split.items():
            split[word] = merged(parts, best)
    return [" ".join(pair) for pair in found]


def merged(parts, pair):
    out = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


def vocabulary(found):
    tokens = letters() + [letter + "</w>" for letter in letters()]
    tokens += [merge.replace(" ", "") for merge in found] + [BEGIN, END]
    assert len(set(tokens)) == len(tokens)
    return {token: index for index, token in enumerate(tokens)}


SIZE = 512 + MERGES + 2


def described(content):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False,
            "single_word": False}


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def write(folder: Path, pad=END, found=None, length=77):
    """`vocab.json` and `merges.txt`, as most published pipelines have them."""
    found = found or merges()
    dump(folder / "vocab.json", json.dumps(vocabulary(found), ensure_ascii=False))
    dump(folder / "merges.txt", "\n".join(["#version: 0.2", *found]))
    dump(folder / "tokenizer_config.json", {
        "add_prefix_space": False, "bos_token": described(BEGIN), "eos_token": described(END),
        "model_max_length": length, "pad_token": pad, "tokenizer_class": "CLIPTokenizer",
        "unk_token": described(END), "do_lower_case": True, "errors": "replace"})
    dump(folder / "special_tokens_map.json", {
        "bos_token": described(BEGIN), "eos_token": described(END), "pad_token": pad,
        "unk_token": described(END)})


def write_single(folder: Path, pad=END):
    """The same as one `tokenizer.json`, as newer pipelines have it."""
    from transformers import CLIPTokenizer

    write(folder, pad)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        (folder / name).unlink()
    tokenizer.save_pretrained(folder)
    assert (folder / "tokenizer.json").exists() and not (folder / "vocab.json").exists()
