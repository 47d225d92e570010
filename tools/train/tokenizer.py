"""Learns the byte-pair vocabulary, in CLIP's format.

    tools/train/tokenizer

All 256 bytes are in it, alone and at the end of a word, so any text has tokens; nearly every word of the prompts
becomes one token.
"""

import json
import re
from collections import Counter

import settings

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
# Words of prompts that people type, beside those of training.
COMMON = """a an the of in on at with and or by for from to under over behind photo photograph painting drawing
picture image style background cute happy sad old young man woman child house car street city sky sea water river
mountain forest night day light dark bright soft high quality detailed realistic cartoon oil watercolor pencil
beautiful sitting standing eating sleeping running flying wearing holding two three some very""".split()


def letters():
    """The printable stand-ins of bytes, in the order of CLIP's vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    stand_ins = iter(range(256, 512))
    rest = {byte: chr(next(stand_ins)) for byte in range(256) if byte not in printable}
    return [chr(byte) for byte in printable] + list(rest.values())


def learn(words, count):
    """The most frequent pair is merged first; equals go in alphabetical order."""
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


def described(content):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def write(folder, merges, length):
    """`vocab.json`, `merges.txt` and the two files of settings."""
    tokens = letters() + [letter + "</w>" for letter in letters()]
    tokens += [merge.replace(" ", "") for merge in merges] + [BEGIN, END]
    assert len(set(tokens)) == len(tokens)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    special = {"bos_token": described(BEGIN), "eos_token": described(END), "pad_token": END,
               "unk_token": described(END)}
    files = {"vocab.json": json.dumps(vocabulary, ensure_ascii=False),
             "merges.txt": "\n".join(["#version: 0.2", *merges]),
             "special_tokens_map.json": json.dumps(special, indent=1),
             "tokenizer_config.json": json.dumps(
                 {"add_prefix_space": False, **special, "model_max_length": length,
                  "tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "errors": "replace"}, indent=1)}
    for name, text in files.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
    return len(tokens)


def load(s):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(s.work / "tokenizer")


def main():
    s = settings.read(__doc__)
    import prompts
    import scenes

    sentences = prompts.vocabulary_corpus(scenes.World(s), 20000)
    words = Counter(word for line in sentences for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", line.lower()))
    words.update({word: 3 for word in COMMON})
    merges = learn(words, s.merges)
    size = write(s.work / "tokenizer", merges, s.tokens)
    tokenizer = load(s)
    lengths = Counter(len(tokenizer(line).input_ids) for line in sentences[:4000])
    print(size, "tokens;", len(merges), "merges; lengths", sorted(lengths.items()))
    print(tokenizer.tokenize("a large hippopotamus next to a bell pepper on a yellow background, flat style"))


if __name__ == "__main__":
    main()
