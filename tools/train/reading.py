"""The UNet's first residual block reads what `coupling` decides by, with weights that are known and are not trained.

Training finds them slowly, since means of the noise drown in the noise. A group normalisation takes them exactly, and
for all places at once: where a group has one channel of noise and nothing else, its other channels become minus the
mean, in deviations of the noise. Where a group has channels of both signs and nothing else, the next normalisation
makes a sign of one number, and a direction of three.

The answers stand beside the noise in the stream of the first block, and with their opposites in the last channels of
the last block, so that normalisations there leave them as they are. What follows from them is trained.
"""

import torch

# In each group of channels that reads a number: the noise, its mean with both signs, and the answer.
NOISE, PLUS, MINUS, ANSWER = range(4)
# Numbers of the ground.
GROUND = 3


class Reading:
    """The known weights of a UNet."""

    def __init__(self, unet):
        config = unet.config
        width, self.size = config.block_out_channels[0], config.block_out_channels[0] // config.norm_num_groups
        self.side = config.sample_size
        self.ends, self.first, self.last = unet.conv_in, unet.down_blocks[0].resnets[0], unet.up_blocks[-1]
        # What is read: the style's number, then the ground's.
        self.noise = [config.in_channels - 1, *range(config.in_channels - 1 - GROUND, config.in_channels - 1)]
        self.groups = [width - (1 + GROUND - i) * self.size for i in range(1 + GROUND)]
        # Of the channels inside the first residual block, and of the last block's.
        self.sign, self.direction, self.told = width - 2 * self.size, width - self.size, width - self.size

    @torch.no_grad()
    def keep(self):
        """Puts the known weights in their places."""
        clear(slice(self.groups[0], None), self.ends)
        clear(slice(self.sign, None), self.first.conv1, self.first.time_emb_proj)
        for noise, group in zip(self.noise, self.groups):
            self.ends.weight[group + NOISE, noise, 1, 1] = 1
            clear(slice(group + PLUS, group + self.size), self.first.norm1)
            # This makes the deviation of a mean 1.
            self.first.norm1.weight[group + PLUS] = -self.side * self.size ** 0.5
            self.first.norm1.weight[group + MINUS] = self.side * self.size ** 0.5
            clear(group + ANSWER, self.first.conv2)
        self.first.norm2.weight[self.sign:], self.first.norm2.bias[self.sign:] = 1, 0
        for i in range(self.size // 2):
            self.pair(self.sign + 2 * i, self.groups[0], 2 / self.size)
        for i, group in enumerate(self.groups[1:]):
            # Three numbers with their opposites in so many channels: normalised, their length is not 1.
            self.pair(self.direction + 2 * i, group, (2 / self.size) ** 0.5)
        block = self.last.resnets[0]
        clear(slice(self.told, None), block.conv2, block.conv_shortcut, self.last.attentions[0].proj_out)
        skipped = block.conv_shortcut.in_channels - self.ends.out_channels
        for i, group in enumerate(self.groups):
            block.conv_shortcut.weight[self.told + 2 * i, skipped + group + ANSWER] = 1
            block.conv_shortcut.weight[self.told + 2 * i + 1, skipped + group + ANSWER] = -1

    def pair(self, hidden, group, part):
        """A mean and its opposite in two hidden channels, and the part of the answer that comes of both.

        SiLU of a number and SiLU of its opposite differ by the number.
        """
        for channel, sign in ((hidden, 1), (hidden + 1, -1)):
            self.first.conv1.weight[channel, group + PLUS, 1, 1] = sign
            self.first.conv1.weight[channel, group + MINUS, 1, 1] = -sign
            self.first.conv2.weight[group + ANSWER, channel, 1, 1] = sign * part


def clear(rows, *modules):
    for module in modules:
        module.weight[rows] = 0
        module.bias[rows] = 0
