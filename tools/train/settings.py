"""What a run is: the fields of `pocket.json`, or of the file named by `--settings`."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def read(description, **more):
    """The settings, with the command line's options put beside them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--settings", type=Path, default=HERE / "pocket.json")
    parser.add_argument("--work", type=Path, help="folder of data and checkpoints, instead of the settings' one")
    more = {"threads": (int, None), **more}
    for name, (kind, default) in more.items():
        parser.add_argument("--" + name.replace("_", "-"), type=kind, default=default)
    options = vars(parser.parse_args())
    found = json.loads(options.pop("settings").read_text(), object_hook=space)
    work = options.pop("work")
    for name, value in options.items():
        if name != "threads" or value is not None:
            setattr(found, name, value)
    found.work = work or HERE / found.work
    return found


def space(fields):
    """Objects with attributes, but plain dictionaries where the keys are data."""
    return fields if set(fields) == {"small", "large"} else SimpleNamespace(**fields)


def torch_up(settings):
    """PyTorch with the settings' number of threads and their device."""
    import torch

    torch.set_num_threads(settings.threads)
    torch.set_default_device(settings.device)


def narrow(settings):
    """Products in bfloat16 where the processor multiplies tiles of them; elsewhere single precision is faster."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    able = settings.device != "cpu" or (cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text())
    return torch.autocast(settings.device, torch.bfloat16, enabled=able)
