"""Writes the golden optima of `crates/quant/tests/optima.rs`.

    tools/.venv/bin/python tools/reference/allocation.py

Integer programmes of the sizes that networks have, from seeds, with numbers that Rust computes alike
(SplitMix64, then sums, products and quotients only). HiGHS solves each of them twice, as it is and with scores counted from
each layer's least and enlarged, because its tolerances are absolute; the two must agree.
`testdata/allocation/optima.json`, one case per line:

    family, seed, layers, bits   what `problem` makes the numbers from
    low, high                    the window of the sum of costs (bits times sizes)
    objective                    the greatest sum of scores, or null if nothing lies in the window
"""

import json
import math
from pathlib import Path

import numpy
import scipy.sparse
from scipy.optimize import Bounds, LinearConstraint, milp

OUT = Path(__file__).resolve().parents[2] / "testdata" / "allocation" / "optima.json"
MASK = (1 << 64) - 1
# Numbers of parameters of a UNet's layers, over 11520.
SIZES = (1.0, 320.0 / 9.0, 80.0, 1280.0 / 9.0, 160.0, 5120.0 / 9.0, 1280.0, 2560.0)


class Random:
    """SplitMix64 as numbers from 0 to 1."""

    def __init__(self, seed):
        self.state = seed

    def __call__(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) >> 11) / float(1 << 53)


def layer(family, random):
    """The size of a layer and its scores at 2, 4 and 8 bits."""
    a, b, c, d = random(), random(), random(), random()
    if family == "likeness":
        top = 1.0 - 0.0001 * a
        middle = top - 0.01 * (b * b * b)
        return 1.0 + 99.0 * (d * d), (middle - 0.1 * (c * c * c), middle, top)
    if family == "decibels":
        top = 60.0 + 24.0 * a
        middle = top - 20.0 * b
        return SIZES[int(8.0 * d)], (middle - 15.0 * c, middle, top)
    if family == "proportional":
        size = 1.0 + 9.0 * d
        return size, (0.01 * a, size + 0.01 * b, 1.7 * size + 0.01 * c)
    if family == "falling":
        return 1.0 + 9.0 * d, (10.0 + a, 10.0 - b, 8.0 - 2.0 * c)
    if family == "repeated":
        return SIZES[int(3.0 * d)], (0.0, 1.0 + int(3.0 * a), 4.0 + int(3.0 * b))
    raise ValueError(family)


def problem(family, seed, layers, bits):
    """Costs and scores, one row per layer."""
    random = Random(seed)
    rows = [layer(family, random) for _ in range(layers)]
    costs = numpy.array([[b * size for b in bits] for size, _ in rows])
    scores = numpy.array([[scores[(2, 4, 8).index(b)] for b in bits] for _, scores in rows])
    return costs, scores, math.fsum(size for size, _ in rows)


def optimum(costs, scores, low, high):
    layers, choices = costs.shape
    one_each = scipy.sparse.kron(scipy.sparse.eye(layers), numpy.ones((1, choices)))
    matrix = scipy.sparse.vstack([one_each, scipy.sparse.csr_matrix(costs.reshape(1, -1))]).tocsc()
    ones = numpy.ones(layers)
    constraint = LinearConstraint(matrix, numpy.r_[ones, low], numpy.r_[ones, high])
    above = scores - scores.min(axis=1, keepdims=True)
    found = []
    for gains in (scores, above * (10_000.0 / above.sum())):
        result = milp(
            -gains.ravel(),
            constraints=constraint,
            integrality=numpy.ones(costs.size),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0, "time_limit": 600},
        )
        if result.status == 2:
            return None
        assert result.status == 0, result.message
        chosen = result.x.reshape(costs.shape).argmax(axis=1)
        rows = numpy.arange(layers)
        assert low <= math.fsum(costs[rows, chosen]) <= high
        found.append(math.fsum(scores[rows, chosen]))
    best = max(found)
    assert best - min(found) <= 1e-7 * (abs(best) + 1.0), found
    return best


def cases():
    for seed, (layers, bits) in enumerate(((420, (2, 4, 8)), (374, (4, 8))), start=1):
        for family in ("likeness", "decibels", "proportional", "falling", "repeated"):
            for target in (4.3, 5.2, 7.1):
                yield family, seed, layers, bits, target, 0.02
    yield "likeness", 7, 420, (2, 4, 8), 5.0, 0.0001
    yield "decibels", 7, 374, (4, 8), 5.0, 0.0001
    yield "falling", 7, 374, (4, 8), 3.9, 0.02


def main():
    OUT.parent.mkdir(exist_ok=True)
    lines = []
    for family, seed, layers, bits, target, tolerance in cases():
        costs, scores, size = problem(family, seed, layers, bits)
        low, high = (target - tolerance) * size, (target + tolerance) * size
        case = {
            "family": family,
            "seed": seed,
            "layers": layers,
            "bits": bits,
            "low": low,
            "high": high,
            "objective": optimum(costs, scores, low, high),
        }
        print(case, flush=True)
        lines.append(json.dumps(case))
    OUT.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
