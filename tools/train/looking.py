"""Where the UNet is to look: shown to the attention of its last block in training, beside the denoising loss.

At every place of the latents, the attention to the sentence is to find the register that holds the piece of the object
there, and the position before all registers where there is none. Then copying it is soon learned.
"""

import numpy as np
import torch

import device
import registers
import scenes

# How much stronger the names of pieces are in the first keys than other numbers.
NAMES = 4.0


class Watched:
    """Plain attention that remembers what it looked at."""

    def __init__(self):
        self.looked = None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        q, k, v = (attn.head_to_batch_dim(part) for part in (
            attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)))
        self.looked = attn.get_attention_scores(q, k)
        return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(self.looked, v)))


@torch.no_grad()
def watch(unet, wanted):
    """Puts watched attention to the sentence into the last block; at first its keys are mostly the names of pieces."""
    found = []
    names = slice(wanted.width - wanted.flags, wanted.width - sum(wanted.answers))
    for transformer in unet.up_blocks[-1].attentions:
        for block in transformer.transformer_blocks:
            found.append(Watched())
            block.attn2.set_processor(found[-1])
            block.attn2.to_k.weight[:, names] *= NAMES
    return found


def aim(s, world, wanted, scene):
    """`[place of the latents]`: the position in the sentence to look at."""
    found = np.full((registers.ACROSS,) * 2, registers.FIRST - 1)
    step, side = s.picture // registers.ACROSS, wanted.sides[scene.size]
    pieces = np.arange(side * side).reshape(side, side) + (wanted.sides[0] ** 2 if scene.size else 0)
    for (x, y), own in zip(world.corners(scene), (pieces, np.reshape(wanted.corner(), (wanted.sides[0],) * 2))):
        column, row = (x - s.margin) // step, (y - s.margin) // step
        found[row:row + side, column:column + side] = registers.FIRST + own
    fine = step // 8
    return device.array(found.repeat(fine, 0).repeat(fine, 1).reshape(-1))


def astray(watched, aims):
    """The cross entropy of all heads, and the part of objects' places at which the mean of heads looks right."""
    several = aims.repeat_interleave(len(watched[0].looked) // len(aims), 0)[..., None]
    loss = -sum(w.looked.float().gather(-1, several).clamp_min(1e-6).log().mean() for w in watched) / len(watched)
    with torch.no_grad():
        best = watched[0].looked.view(len(aims), -1, *watched[0].looked.shape[1:]).mean(1).argmax(-1)
    return loss, (best == aims)[aims >= registers.FIRST].float().mean().item()
