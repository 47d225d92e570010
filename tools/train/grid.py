"""The first matrices of the solved layers, on the grid that rows of eight bits have.

Where a matrix is solved, its builder may choose among many that are as good: those whose rows are whole numbers times a
unit lose next to nothing in a file of eight bits. `mixdq quantize` makes the columns of such a matrix alike by powers of two, as
parts of the largest of their rows, so the grid is that of rows whose columns are alike.
"""

import torch

LEVELS = 127
# Powers of two that columns are multiplied or divided by at most.
MOST = 8


def factors(weight):
    """What each column is divided by."""
    parts = (weight.abs() / weight.abs().amax(1, keepdim=True).clamp_min(1e-30)).amax(0)
    logs = parts.log2()
    mean = logs[logs.isfinite()].mean()
    return torch.where(logs.isfinite(), (logs - mean).round().clamp(-MOST, MOST), 0.0).exp2()


@torch.no_grad()
def place(linear):
    """Moves the weights to the nearest points of the grid.

    That may change which power of two a column has. Where it then goes to and fro, the column keeps the smaller one, and
    is off the grid: a column or two of a matrix.
    """
    weight = linear.weight.double()
    columns, placed = factors(weight), None
    while placed is None or (factors(placed) < columns).any():
        columns = columns if placed is None else torch.minimum(columns, factors(placed))
        alike = weight / columns
        unit = alike.abs().amax(1, keepdim=True).clamp_min(1e-30) / LEVELS
        placed = ((alike / unit).round() * unit * columns).half().double()
    linear.weight.copy_(placed)


def place_solved(text, taught):
    """All solved layers of a text encoder: those behind the trained ones, but for the last, which nothing reads."""
    for layer in text.encoder.layers[taught:-1]:
        place(layer.mlp.fc1)
