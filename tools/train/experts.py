"""The layers of the first text encoder that turn an object's code into its pieces: solved, not trained.

A piece is nearly a linear map of the code, another one for every name of a piece. The hidden units of these layers are
shared out among the names, more to those of pieces that differ more from object to object. Those of a name are far in
the straight part of their curve where the flags of the state have it, and off elsewhere; so they are a linear map of
their own, as good as their number allows.
"""

import torch

# How far units are in the straight part, or off, at nearly all states.
FAR, NEARLY = 5.0, 0.97
# This part of the sums of squares is added to them; for directions, so many times more of those at all registers.
RIDGE, WARY = 3e-4, 100.0
# Columns of the second matrix become as small as this part of them is, by this factor at most.
LEAST, MOST = 0.02, 16.0


def shares(wanted, hidden):
    """The hidden units of each name."""
    weights = wanted.single.var(0).sum(-1).sqrt()
    ends = (weights.cumsum(0) / weights.sum() * hidden).round().long()
    return [torch.arange(int(start), int(end)) for start, end in zip([0, *ends[:-1]], ends)]


def gate(wanted, piece, width):
    """Weights for flags, whose sum is 2 at the piece's row and column, and at most 0 elsewhere."""
    weights = torch.zeros(width)
    start = width - wanted.flags
    # The last name only says which object or size it is.
    names = wanted.names[0, piece, :-1]
    weights[start:start + len(names)] = torch.where(names > 0, 1.0, -1.0)
    # Normalised states lack their mean, so the weights' own sum is to be 0. One flag of each question is up: weights
    # of opposite sign for two questions say nothing.
    more, fewer = wanted.answers[:2]
    colour, style = (slice(width - sum(wanted.answers[i:]), width - sum(wanted.answers[i + 1:])) for i in range(2))
    level = -weights.sum() / (more - fewer)
    weights[colour], weights[style] = level, -level
    return weights


def named(wanted, piece, pairs):
    """`[scene, register]`: whether a register has a piece's name, by whether the scenes are pairs."""
    same = (wanted.names[..., :-1] == wanted.names[0, piece, :-1]).all(-1)
    return same[pairs.long()]


@torch.no_grad()
def solve(layer, states, right, pairs, wanted):
    """Sets a layer so that it adds what is missing in the states' first numbers, as well as it can; the new states."""
    width, hidden = states.shape[-1], len(layer.mlp.fc1.weight)
    for linear in (layer.self_attn.out_proj, layer.mlp.fc2):
        linear.weight.zero_()
        linear.bias.zero_()
    normal = layer.layer_norm2(states)
    every = torch.cov(normal.flatten(0, 1).T)
    for piece, own in enumerate(shares(wanted, hidden)):
        here, weights = named(wanted, piece, pairs), gate(wanted, piece, width)
        x, missing = normal[here], right[here] - states[here][:, :wanted.content]
        asked = normal @ weights
        low, high = asked[here].quantile(1 - NEARLY), asked[~here].quantile(NEARLY)
        steep = 2 * FAR / (low - high)
        layer.mlp.fc1.weight[own] = steep * weights
        layer.mlp.fc1.bias[own] = -steep * (low + high) / 2
        # The directions of the code that say most; the last unit of a name is a constant.
        layer.mlp.fc1.weight[own[:-1]] += directions(x, missing, len(own) - 1, every)
        active = layer.mlp.activation_fn(layer.mlp.fc1(x)[:, own])
        layer.mlp.fc2.weight[:wanted.content, own] = ridge(active, missing).T
    level(layer.mlp)
    return states + torch.cat([layer.mlp(part) for part in normal.split(256)])


@torch.no_grad()
def level(mlp):
    """Makes the columns of the second matrix alike, since few bits have one step for all of a row.

    Units that are far in the straight part of their curve, or off, are so much the more when they are larger.
    """
    columns = mlp.fc2.weight.abs().amax(0)
    larger = (columns / columns.quantile(LEAST)).clamp(1, MOST)
    mlp.fc2.weight /= larger
    mlp.fc1.weight *= larger[:, None]
    mlp.fc1.bias *= larger


def ridge(x, y, more=None):
    """Least squares, with the sum of squares of x taken for somewhat larger than it is."""
    square = x.T @ x
    more = square.diagonal().mean() * torch.eye(len(square)) if more is None else len(x) * more
    return torch.linalg.solve(square + RIDGE * more, x.T @ y)


def directions(x, y, count, every):
    """The `count` linear functions of x that say most about y, of deviation 1 or less.

    `every` is the covariance of the states at all registers: a function that is steeper at other ones than here would
    turn units on there.
    """
    x, y = x - x.mean(0), y - y.mean(0)
    maps = ridge(x, y, WARY * every + torch.eye(len(every)))
    found = torch.linalg.eigh(torch.cov((x @ maps).T))[1][:, -count:]
    rows = (maps @ found).T
    here, elsewhere = (x @ rows.T).std(0), ((rows @ every) * rows).sum(1).sqrt()
    return rows / torch.maximum(here, elsewhere / 2).clamp_min(1e-4)[:, None]
