"""What a sentence leaves open is chosen by the first noise.

A picture of one step can be sharp only if the noise decides it. So the noise of a training sample is made to
point at what its scene shows: it stays normally distributed, since only channels are exchanged or planes are mirrored.
Colour is the channel of 0 to 9 with the highest mean, place that of 10 to 14; in the last one the left half over the
right one means the first style and the upper half over the lower one the small size.
"""

from colours import NAMES as COLOURS
from scenes import PLACES

COLOUR, PLACE, REST = slice(0, len(COLOURS)), slice(len(COLOURS), len(COLOURS) + len(PLACES)), -1


def couple(noise, scene, prompt):
    """Changes the noise `[channels, height, width]` of one sample in place."""
    means = noise.mean((1, 2))
    if not prompt.colour:
        lead(noise, means, COLOUR, scene.colour)
    if not prompt.place:
        lead(noise, means, PLACE, scene.place)
    plane = noise[REST]
    height, width = plane.shape
    if not prompt.style and (plane[:, :width // 2].mean() > plane[:, width // 2:].mean()) != (scene.style == 0):
        plane[:] = plane.flip(1)
    if not prompt.size and (plane[:height // 2].mean() > plane[height // 2:].mean()) != (scene.size == 0):
        plane[:] = plane.flip(0)


def lead(noise, means, channels, wanted):
    """Exchanges the channel of the highest mean with the wanted one."""
    best, wanted = channels.start + int(means[channels].argmax()), channels.start + wanted
    if best != wanted:
        noise[[best, wanted]] = noise[[wanted, best]].clone()
