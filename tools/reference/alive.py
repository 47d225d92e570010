"""Random weights that make a network do something.

Plain random initialisation of a deep network gives grey pictures that no prompt moves.
Here every linear layer and convolution is first drawn at random and then, during one
run on typical input, scaled so that its output has a wished standard deviation. `check` runs
again and refuses a network with a dead or exploding layer.
"""

import torch
from torch import nn

LAYERS = (nn.Linear, nn.Conv2d)
NORMS = (nn.GroupNorm, nn.LayerNorm)
# Wished standard deviations by the end of the layer's name; others get 1.
WISHES = {
    "attn2.to_out.0": 1.6,
    "attn1.to_out.0": 0.7,
    "to_q": 1.5,
    "to_k": 1.5,
    "q_proj": 1.6,
    "k_proj": 1.6,
    "conv2": 0.7,
    "ff.net.2": 0.7,
    "proj_out": 0.7,
    "time_emb_proj": 0.7,
    "fc2": 0.7,
}
LIMITS = (0.05, 20.0)


def draw(model, generator):
    """First values of all parameters, in the order of their names."""
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        owner = model.get_submodule(name.rpartition(".")[0]) if "." in name else model
        if isinstance(owner, NORMS):
            noise = 0.2 * noise + (1.0 if name.endswith("weight") else 0.0)
        elif isinstance(owner, nn.Embedding):
            noise = noise * 0.7
        elif parameter.ndim > 1:
            noise = noise / parameter[0].numel() ** 0.5
        else:
            noise = noise * 0.1
        parameter.data.copy_(noise)


def wish(name, wishes):
    return next((value for end, value in {**WISHES, **wishes}.items() if name.endswith(end)), 1.0)


@torch.no_grad()
def settle(model, run, wishes=None):
    """Scales every layer during one run so that its output has the wished deviation."""
    seen = set()

    def hook(name):
        def scale(module, _inputs, output):
            if name in seen:
                return output
            seen.add(name)
            bias = 0.0 if module.bias is None else module.bias
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                bias = bias.reshape(1, -1, 1, 1)
            pure = output - bias
            factor = wish(name, wishes or {}) / pure.std().item()
            module.weight.data.mul_(factor)
            return pure * factor + bias
        return scale

    hooks = [module.register_forward_hook(hook(name)) for name, module in layers(model)]
    run()
    for handle in hooks:
        handle.remove()


def layers(model):
    return [(n, m) for n, m in model.named_modules() if isinstance(m, LAYERS)]


@torch.no_grad()
def check(model, run, title):
    """Prints the range of the layers' output deviations; fails outside the limits."""
    found = {}

    def hook(name):
        def note(_module, _inputs, output):
            found[name] = output.float().std().item()
        return note

    hooks = [m.register_forward_hook(hook(n)) for n, m in layers(model)]
    run()
    for handle in hooks:
        handle.remove()
    low, high = min(found, key=found.get), max(found, key=found.get)
    print(f"{title}: {len(found)} layers, deviation {found[low]:.3f} ({low}) "
          f"to {found[high]:.3f} ({high})")
    assert LIMITS[0] <= found[low] and found[high] <= LIMITS[1], title


@torch.no_grad()
def aim(unet, batches, generator, part=0.35):
    """Makes the last convolution predict the input, plus something random.

    A network that predicts the noise answers roughly with its own scaled input. A ridge
    regression on the features before `conv_out` gives that; `part` is the deviation of the random rest,
    which carries the prompt.
    """
    captured = []
    last = unet.conv_out
    handle = last.register_forward_hook(lambda _m, inputs, _o: captured.append(inputs[0]))
    for batch in batches:
        unet(**batch)
    handle.remove()
    columns = torch.cat([nn.functional.unfold(f, 3, padding=1).transpose(1, 2).flatten(0, 1)
                         for f in captured]).double()
    wanted = torch.cat([b["sample"].flatten(2).transpose(1, 2).flatten(0, 1)
                        for b in batches]).double()
    gram = columns.T @ columns
    ridge = 1e-2 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    fit = torch.linalg.solve(gram + ridge, columns.T @ wanted)
    rest = torch.randn(fit.shape, generator=generator, dtype=torch.float64)
    rest *= part / (columns @ rest).std()
    # The bias takes out the mean, which would tint every picture alike.
    weight = (fit + rest).T.float()
    last.weight.data.copy_(weight.reshape(last.weight.shape))
    last.bias.data.copy_((wanted - columns @ (fit + rest)).mean(0).float())
    left = (wanted - columns @ fit).std() / wanted.std()
    print(f"  noise prediction: {left:.2f} of the input left over")
