"""Hidden units of feed-forward networks, made alike without changing what a network computes.

A unit is a value times a gate. Twice the value and half of what the next matrix makes of it are the same unit, and units
may stand in any order. But few bits have one step for a whole row of units, or for 64 weights, and where one is a hundred
times as large as the others, that leaves the others little.
"""

import torch

PROMPTS, STEPS = 60, (1, 4)
# A unit's size is what nearly all of its magnitudes stay below.
NEARLY, TOKENS = 0.999, 8000
# A unit is made at most so many times larger or smaller.
MOST = 256.0


@torch.no_grad()
def balance(pipeline, prompts):
    """Changes the UNet of a pipeline, by what its units are when these prompts are drawn."""
    modules = dict(pipeline.unet.named_modules())
    networks = {name: modules[name] for name in modules if name.endswith(".ff")}
    seen = {name: [] for name in networks}
    hooks = [network.net[2].register_forward_pre_hook(
        lambda _, given, name=name: seen[name].append(given[0].abs().flatten(0, -2))) for name, network in networks.items()]
    for steps in STEPS:
        pipeline(prompts[:PROMPTS], num_inference_steps=steps, guidance_scale=0.0, output_type="latent",
                 generator=torch.Generator().manual_seed(steps))
    for hook in hooks:
        hook.remove()
    generator = torch.Generator().manual_seed(1)
    for name, network in networks.items():
        units = torch.cat(seen[name])
        units = units[torch.randperm(len(units), generator=generator)[:TOKENS]]
        alike(network.net[0].proj, network.net[2], units.quantile(NEARLY, 0).clamp_min(1e-6))


def alike(before, after, units):
    """Half of the differences in size of units go into the columns of the weights after them, by whose size they then stand."""
    columns = after.weight.abs().amax(0).clamp_min(1e-9)
    sizes = (units / columns).sqrt()
    sizes = (sizes / sizes.log().mean().exp()).clamp(1 / MOST, MOST)
    after.weight *= sizes
    order = after.weight.abs().amax(0).argsort()
    after.weight.copy_(after.weight[:, order])
    # Values come first, then gates.
    values, gates = before.weight.split(len(sizes))
    value_bias, gate_bias = before.bias.split(len(sizes))
    before.weight.copy_(torch.cat([(values / sizes[:, None])[order], gates[order]]))
    before.bias.copy_(torch.cat([(value_bias / sizes)[order], gate_bias[order]]))
