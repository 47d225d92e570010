"""Writes the golden noise of `crates/pipeline/tests/samplers.rs`.

Run with PyTorch on an x86-64 machine that has AVX2:

    tools/.venv/bin/python tools/reference/noise.py

`testdata/samplers/noise.bin` is a row of little-endian u32 words. A draw is

    seed (low word, high word), number of requests, then for each request
    its size, how many of its values are stored, and the bits of those values.

Requests of one draw come from one generator, one after the other. Long requests
store their FNV-1a hash over the bits instead of the values: the number of stored
values is then 0 and one word follows.
"""

from pathlib import Path
import struct

import torch

OUT = Path(__file__).resolve().parents[2] / "testdata" / "samplers" / "noise.bin"
WHOLE = 300  # longest request whose values are stored one by one


def draws():
    """Seeds with the sizes that are requested from each, in order."""
    for size in [*range(1, 71), 256, 4096, 16384]:
        yield size * 7919, [size]
    for seed in (0, 1, 42, 2**31, 2**32 - 1, 2**32 + 5, 2**40 + 12345, 2**63 - 1):
        yield seed, [64, 4096]
    yield 42, [5, 5, 16, 3, 1, 17, 2, 33, 7, 15, 31, 4]
    yield 123456789012, [16, 1, 16, 1, 1, 100, 9]
    yield 3, [16384] * 4


def words(values):
    bits = values.view(torch.int32).tolist()
    bits = [b & 0xFFFFFFFF for b in bits]
    if len(bits) <= WHOLE:
        return [len(bits), len(bits), *bits]
    digest = 0x811C9DC5
    for word in bits:
        for shift in (0, 8, 16, 24):
            digest = ((digest ^ (word >> shift & 0xFF)) * 0x01000193) & 0xFFFFFFFF
    return [len(bits), 0, digest]


def main():
    torch.set_num_threads(1)
    out = []
    for seed, sizes in draws():
        generator = torch.Generator().manual_seed(seed)
        out += [seed & 0xFFFFFFFF, seed >> 32, len(sizes)]
        for size in sizes:
            out += words(torch.randn(size, generator=generator))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_bytes(struct.pack(f"<{len(out)}I", *out))
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
