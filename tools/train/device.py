"""Where a stage has its tensors: on the settings' device, which `settings.torch_up` makes PyTorch's own.

Data are made, and noise is drawn, on the processor, so that they are the same for every device.
"""

import torch


def here(tensor):
    """A tensor that was made on the processor."""
    return tensor.to(torch.get_default_device())


def array(numbers):
    """What NumPy made."""
    return here(torch.from_numpy(numbers))


def generator(seed):
    return torch.Generator("cpu").manual_seed(seed)


def normal(*shape, by):
    return here(torch.randn(*shape, generator=by, device="cpu"))


def uniform(*shape, by):
    return here(torch.rand(*shape, generator=by, device="cpu"))
