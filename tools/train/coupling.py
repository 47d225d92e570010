"""What a sentence leaves open is chosen by the first noise.

A picture of one step can be sharp only if the noise decides it. So the noise of a training sample is made to
point at what its scene shows: it stays normally distributed, since only channels are exchanged or planes are mirrored.
Colour is the channel of 0 to 9 with the highest mean; in the last one the left half over the right one means the first
style. Size and place are never open: large and in the middle is what a sentence means that says nothing of them.
"""

from colours import NAMES as COLOURS

COLOUR, STYLE = slice(0, len(COLOURS)), -1


def couple(noise, scene, prompt):
    """Changes the noise `[channels, height, width]` of one sample in place."""
    means = noise.mean((1, 2))
    if not prompt.colour:
        lead(noise, means, COLOUR, scene.colour)
    plane = noise[STYLE]
    half = plane.shape[1] // 2
    if not prompt.style and (plane[:, :half].mean() > plane[:, half:].mean()) != (scene.style == 0):
        plane[:] = plane.flip(1)


def lead(noise, means, channels, wanted):
    """Exchanges the channel of the highest mean with the wanted one."""
    best, wanted = channels.start + int(means[channels].argmax()), channels.start + wanted
    if best != wanted:
        noise[[best, wanted]] = noise[[wanted, best]].clone()
