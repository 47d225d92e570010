"""Learns the byte-pair vocabulary, in CLIP's format.

    tools/train/tokenizer

All 256 bytes are in it, alone and at the end of a word, so any text has tokens; nearly every word of the prompts
becomes one token.
"""

import re
import sys
from collections import Counter

import settings

# Behind the scripts of this folder, some of which have the names of others there.
sys.path.append(str(settings.ROOT / "tools" / "reference"))
import vocabulary  # noqa: E402

# Words of prompts that people type, beside those of training.
COMMON = """a an the of in on at with and or by for from to under over behind photo photograph painting drawing
picture image style background cute happy sad old young man woman child house car street city sky sea water river
mountain forest night day light dark bright soft high quality detailed realistic cartoon oil watercolor pencil
beautiful sitting standing eating sleeping running flying wearing holding two three some very""".split()


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
    merges = vocabulary.learn(words, s.merges)
    vocabulary.write(s.work / "tokenizer", found=merges, length=s.tokens)
    tokenizer = load(s)
    lengths = Counter(len(tokenizer(line).input_ids) for line in sentences[:4000])
    print(len(tokenizer), "tokens;", len(merges), "merges; lengths", sorted(lengths.items()))
    print(tokenizer.tokenize("a large hippopotamus next to a bell pepper on a yellow background, flat style"))


if __name__ == "__main__":
    main()
