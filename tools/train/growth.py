"""A trained decoder in a larger one that draws the same, to be trained on from there.

Old channels see nothing of new ones at first, and new blocks, which follow the old ones of their size, add nothing.
"""

import torch
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock


def sizes(decoder):
    """The layers of each size of pictures: what leads there, and the blocks."""
    found = []
    for layer in decoder.layers:
        if isinstance(layer, AutoencoderTinyBlock):
            found[-1][1].append(layer)
        elif isinstance(layer, torch.nn.Conv2d):
            found.append((layer, []))
    return found


@torch.no_grad()
def grow(large, small):
    """Puts the weights of the decoder `small` into `large`, which has as many sizes."""
    for (to, blocks), (of, older) in zip(sizes(large), sizes(small), strict=True):
        put(to, of)
        # A block that adds nothing is the identity behind another one: it lets no negative number through.
        assert len(blocks) == len(older) or len(blocks) > len(older) > 0, "no decoder of these sizes draws the same"
        for block, old in zip(blocks, older):
            for here, there in zip(block.conv, old.conv):
                if isinstance(here, torch.nn.Conv2d):
                    put(here, there)
        for block in blocks[len(older):]:
            block.conv[-1].weight.zero_()
            block.conv[-1].bias.zero_()


def put(to, of):
    """Old channels become what they were, and see nothing of new ones; new ones stay as they are."""
    rows, columns = of.weight.shape[:2]
    to.weight[:rows] = 0
    to.weight[:rows, :columns] = of.weight
    if of.bias is not None:
        to.bias[:rows] = of.bias
