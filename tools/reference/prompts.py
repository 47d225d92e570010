"""Token ids of odd prompts, as transformers' CLIPTokenizer gives them.

Writes testdata/prompts:
  tokenizer/       a cut of CLIP's vocabulary in a folder, with `!` as the padding token
  tokenizer_json/  the same as one tokenizer.json, with described special tokens
  golden.json      ids of every prompt under both and under the full vocabulary

The full vocabulary is the file bpe_simple_vocab_16e6.txt of the crate instant-clip-tokenizer:

  python tools/reference/prompts.py ~/.cargo/registry/src/*/instant-clip-tokenizer-*/bpe_simple_vocab_16e6.txt
"""

import json
import sys
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer

OUT = Path(__file__).parents[2] / "testdata" / "prompts"
MERGES_KEPT = 400
PROMPTS = [
    "",
    " ",
    "a photo of a cat",
    "A Photo, of  a\tCAT!!\n",
    "hello!world! !",
    "it's we'll they're I'd don't 'tis ''s",
    "8k, 4096x2160, 3.14 % 1/2 x^2",
    "(masterpiece:1.2), [blurry] {x} <lora:a:0.8>",
    "一只猫坐在垫子上",
    "東京の夜景、雨",
    "кошка в Сапогах",
    "قطة صغيرة",
    "ΟΔΥΣΣΕΥΣ and Σίσυφος",
    "Cafe\u0301 na\u00efve Zu\u0308rich Ångström \u212b",
    "İstanbul ISPARTA ığdır",
    "🐱 🏳️‍🌈 👩‍👩‍👧 emoji ❤️",
    "ﬁne ① ½ Ⅷ ²",
    "zero\u200bwidth nb\u00a0sp \u3000wide \ufeffbom",
    "na\u0303o \u0928\u092e\u0938\u094d\u0924\u0947 ไทย 한국어",
    "tab\x0bvt\x1cfs\x85nel \x00nul \x07bell",
    "<|startoftext|>cat<|endoftext|> dog <|ENDOFTEXT|>",
    "<start_of_text> cat <end_of_text>",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "snake_case CamelCase kebab-case a.b.c http://x.y/?q=1&r=2#z",
    "…—“quoted” ‘single’ «guillemets» ¿qué? ¡!",
    "word " * 100,
    ", ".join(f"detail number {i}" for i in range(40)),
]


def bytes_to_unicode():
    """The printable stand-ins of bytes, in the order of CLIP's vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def vocabulary(merges):
    letters = bytes_to_unicode()
    tokens = letters + [letter + "</w>" for letter in letters]
    tokens += ["".join(merge.split()) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def folder(path, merges, pad):
    """A tokenizer folder as older pipelines have it."""
    write(path / "vocab.json", vocabulary(merges))
    write(path / "merges.txt", "\n".join(["#version: 0.2", *merges]))
    write(path / "tokenizer_config.json", {"model_max_length": 77, "pad_token": "<|endoftext|>",
                                           "tokenizer_class": "CLIPTokenizer"})
    described = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    write(path / "special_tokens_map.json", {
        "bos_token": {"content": "<|startoftext|>", **described},
        "eos_token": {"content": "<|endoftext|>", **described},
        "pad_token": pad,
        "unk_token": "<|endoftext|>",
    })


def ids(path):
    tokenizer = CLIPTokenizer.from_pretrained(path)
    return [tokenizer(p, padding="max_length", max_length=tokenizer.model_max_length,
                      truncation=True).input_ids for p in PROMPTS]


def main():
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    golden = {"prompts": PROMPTS}
    with tempfile.TemporaryDirectory() as scratch:
        for name, pad in [("clip_end", "<|endoftext|>"), ("clip_bang", "!")]:
            folder(Path(scratch) / name, merges, pad)
            golden[name] = ids(Path(scratch) / name)
        folder(OUT / "tokenizer", merges[:MERGES_KEPT], "!")
        golden["tokenizer"] = ids(OUT / "tokenizer")
        saved = Path(scratch) / "saved"
        CLIPTokenizer.from_pretrained(OUT / "tokenizer").save_pretrained(saved)
        config = json.loads((saved / "tokenizer_config.json").read_text())
        described = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        config["added_tokens_decoder"] = {
            str(2 * 256 + MERGES_KEPT + i): {"content": token, "special": True, **described}
            for i, token in enumerate(["<|startoftext|>", "<|endoftext|>"])
        }
        write(OUT / "tokenizer_json" / "tokenizer_config.json", config)
        write(OUT / "tokenizer_json" / "tokenizer.json",
              json.loads((saved / "tokenizer.json").read_text()))
        golden["tokenizer_json"] = ids(OUT / "tokenizer_json")
    rows = [f'"{key}": [\n' + ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows) + "\n]"
            for key, rows in golden.items()]
    write(OUT / "golden.json", "{\n" + ",\n".join(rows) + "\n}")


if __name__ == "__main__":
    main()
