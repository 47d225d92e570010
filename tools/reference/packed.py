"""A second reader of packed models, written from docs/format.md, and what they compute in PyTorch.

    packed.py MODEL.mixdq                                  lists what is in it and checks all sums
    packed.py MODEL.mixdq unet --inputs FILE --ours FILE   compares one call with `mixdq bench --save`

The second form builds the network in diffusers with the weights that the file stands for, rounds the
input of every layer as the plan says, and prints the signal-to-noise ratio of our output to its own.
Attention stays real in it, and first tokens are like all others, as in `mixdq bench`. Codes amplify the
last bit of a sum: where inputs are rounded, two right implementations agree no better than one does with
itself when last bits of its sums change, which is printed beside; where only weights are (a16), to more
than 100 dB.
"""

import argparse
import json
import sys
import tomllib
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).parent.parent / "peers"))
import network  # noqa: E402

GROUP, PANEL = 64, 64


def up(number, multiple):
    return -(-number // multiple) * multiple


class Packed:
    def __init__(self, path):
        self.path = path
        self.file = safe_open(path, "np")
        self.metadata = self.file.metadata()
        assert self.metadata["mixdq.version"] in ("1", "2", "3")
        self.weights = json.loads(self.metadata["mixdq.weights"])
        self.plan = tomllib.loads(self.metadata["mixdq.plan"])

    def small(self, path):
        return self.file.get_tensor(path).tobytes()

    def check(self):
        """Compare everything with its checksum; the number of sums."""
        data = Path(self.path).read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        places = sorted((entry["data_offsets"], name) for name, entry in header.items()
                        if name != "__metadata__")
        assert places[-1][1] == "mixdq/checksums"
        found = [zlib.crc32(data[:start])]
        found += [zlib.crc32(data[start + a:start + b]) for (a, b), _ in places[:-1]]
        assert found == self.file.get_tensor("mixdq/checksums").tolist()
        return len(found)

    def weight(self, component, name):
        """The numbers of a weight, as float32 in the shape of diffusers."""
        record = self.weights[component][name]
        shape, form = record["shape"], record["form"].split()
        full = f"{component}/{name}"
        if form[0] in ("vector", "rows"):
            return torch.from_numpy(self.file.get_tensor(full).astype(np.float32))
        if form[0] == "absent":
            parts = [part for part in self.weights[component] if part.startswith(name + ":")]
            parts.sort(key=lambda part: int(part.split(":")[1].split("-")[0]))
            halves = [self.weight(component, part) for part in parts]
            return torch.cat(halves, 1) if halves else torch.zeros(shape)
        outputs, channels, taps = shape[0], shape[1], int(np.prod(shape[2:], dtype=int))
        gated = form[0] == "gated"
        lanes = 2 * up(outputs // 2, 16) if gated else up(outputs, 16)
        if form[1] in ("f16", "bf16"):
            together = 2 if form[1] == "bf16" else 1
            padded = up(channels, together)
            with safe_open(self.path, "pt") as file:
                panels = file.get_tensor(full + ".panels").float().numpy()
            codes = self.panels(panels, lanes, taps * padded, together)
        else:
            padded = up(channels, 4)
            codes = self.codes(form[1], full, lanes, taps * padded).astype(np.float32)
            if form[1] in ("w4", "w2"):
                groups = -(-padded // GROUP)
                multipliers = self.file.get_tensor(full + ".multipliers").reshape(-1, taps * groups, PANEL)
                multipliers = multipliers.transpose(0, 2, 1).reshape(-1, taps, groups)[:lanes]
                codes *= multipliers.repeat(GROUP, axis=2)[:, :, :padded].reshape(lanes, -1)
            sums = self.file.get_tensor(full + ".sums")
            assert np.array_equal(codes.astype(np.int64).sum(1), sums.astype(np.int64)), full
            codes *= self.file.get_tensor(full + ".scales")[:, None]
        if gated:
            turns = codes.reshape(-1, 2, 16, codes.shape[1])
            codes = np.concatenate([turns[:, half].reshape(-1, codes.shape[1])[:outputs // 2]
                                    for half in (0, 1)])
        numbers = codes[:outputs].reshape(outputs, taps, padded)[:, :, :channels]
        return torch.from_numpy(numbers.transpose(0, 2, 1).reshape(shape).copy())

    def factors(self, component, layer):
        """What the inputs of a layer are multiplied by."""
        name = f"{layer}.pre_quant_scale"
        return self.weight(component, name) if name in self.weights[component] else None

    def codes(self, numbers, full, lanes, depth):
        """`[lanes, depth]` whole numbers."""
        bits = int(numbers[1])
        raw = self.file.get_tensor(full + ".panels")
        parts = 8 // bits
        bytes_deep = up(depth, 4 * parts) // parts
        lines = self.panels(raw, lanes, bytes_deep, 4)
        if bits == 8:
            return lines
        quads = lines.view(np.uint8).reshape(lanes, -1, 1, 4)
        codes = np.concatenate([quads >> (bits * part) & (2**bits - 1) for part in range(parts)], axis=2)
        codes = codes.reshape(lanes, -1)[:, :depth].astype(np.int16)
        return codes - 8 if bits == 4 else 2 * codes - 3

    @staticmethod
    def panels(flat, lanes, depth, together):
        """Panels `[depth / together][width][together]` one after another, as `[lanes, depth]`."""
        rows, at = [], 0
        for start in range(0, lanes, PANEL):
            width = min(PANEL, lanes - start)
            padded = up(depth, together)
            panel = flat[at:at + width * padded].reshape(-1, width, together)
            rows.append(panel.transpose(1, 0, 2).reshape(width, -1)[:, :depth])
            at += width * padded
        assert at == flat.size
        return np.concatenate(rows)

    def acts(self, component, layer):
        """Bits of a layer's input, and the channels of what is rounded alone with their range, if that is known."""
        plan = self.plan.get(component, {"default": "float"})
        scheme = plan.get("layers", {}).get(layer, plan["default"])
        if scheme == "float":
            return 16, []
        bits = scheme.split("a")[1]
        known = plan.get("ranges", {}) if bits.endswith("s") else {}
        names = [layer]
        if plan.get("shortcuts") == "apart":
            parts = [name for name in self.weights[component] if name.startswith(f"{layer}.weight:")]
            names = [part.replace(".weight:", ":") for part in parts] or names
        channels = [name.split(":")[1].split("-") if ":" in name else (0, None) for name in names]
        return int(bits.rstrip("s")), [
            (int(a), None if b is None else int(b), known.get(name)) for name, (a, b) in zip(names, channels)]


def ranged(shape):
    """Dimensions whose numbers share a range, where a weight of this shape meets them."""
    if len(shape) == 2:
        return (-1,)
    return (1,) if tuple(shape[2:]) == (1, 1) else (1, 2, 3)


def rounded(x, dims, levels, known=None):
    """Codes with a known range, or one for each index of the dimensions that `dims` leaves out, and back."""
    if known is None:
        low = x.amin(dims, keepdim=True).clamp(max=0)
        high = x.amax(dims, keepdim=True).clamp(min=0)
    else:
        low, high = (torch.tensor(end, dtype=x.dtype) for end in known)
    unit = (high - low) / levels
    unit = torch.where(unit < torch.finfo(torch.float32).tiny, torch.ones_like(unit), unit)
    zero = torch.round(-low / unit)
    return unit * ((torch.round(x * (1 / unit)) + zero).clamp(0, levels) - zero)


def build(packed, component, shaken=None):
    """The component in diffusers, with the file's weights and rounded activations.

    With a generator, what is rounded is changed in its last bits, as by another order of sums.
    """
    import diffusers

    config = json.loads(packed.small(f"{component}/config.json"))
    kind = getattr(diffusers, config["_class_name"])
    with torch.device("meta"):
        model = kind.from_config(config)
    names = model.state_dict().keys()
    state = {name: packed.weight(component, name) for name in names if name in packed.weights[component]}
    missing = [name for name in names if name not in state]
    state |= {name: torch.zeros_like(model.state_dict()[name], device="cpu") for name in missing}
    state = {name: tensor.reshape(model.state_dict()[name].shape) for name, tensor in state.items()}
    model.load_state_dict(state, assign=True)
    for name, layer in model.named_modules():
        if not isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
            continue
        if (factors := packed.factors(component, name)) is not None:
            layer.register_forward_pre_hook(lambda _, args, factors=factors: (args[0] * factors, *args[1:]))
        bits, parts = packed.acts(component, name)
        if bits == 16:
            continue
        dims = ranged(layer.weight.shape)
        axis = 1 if isinstance(layer, torch.nn.Conv2d) else -1

        def hook(_, args, dims=dims, levels=2**bits - 1, parts=parts, axis=axis):
            x = args[0]
            if shaken is not None:
                x = x * (1 + torch.finfo(x.dtype).eps * torch.randint(-1, 2, x.shape, generator=shaken))
            pieces = [(x.narrow(axis, a, (b or x.shape[axis]) - a), known) for a, b, known in parts]
            return (torch.cat([rounded(piece, dims, levels, known) for piece, known in pieces], axis), *args[1:])

        layer.register_forward_pre_hook(hook)
    return (network.Step if component == "unet" else network.Decode)(model.eval())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("component", nargs="?", choices=["unet", "vae"])
    parser.add_argument("--inputs")
    parser.add_argument("--ours")
    options = parser.parse_args()
    packed = Packed(options.file)
    if options.component is None:
        print(f"{packed.check()} checksums agree; {packed.metadata['mixdq.writer']}")
        for component, weights in packed.weights.items():
            forms = [record["form"] for record in weights.values()]
            print(component, {form: forms.count(form) for form in sorted(set(forms))})
        return
    model = build(packed, options.component)
    with torch.inference_mode():
        inputs = network.inputs(options.component, options.inputs)
        reference = model(*inputs).double()
    model = build(packed, options.component, torch.Generator().manual_seed(1))
    with torch.inference_mode():
        other = model(*inputs).double()
    print(f"{network.sqnr(reference, network.output(options.ours)):.2f} dB, "
          f"and {network.sqnr(reference, other):.2f} dB of itself with sums that differ in last bits")


if __name__ == "__main__":
    main()
