"""What a sentence leaves open is read from the network's input, at every step anew.

A picture of one step can be sharp only if the noise decides it. So where a sentence does not say the style, the sign of
the mean of the input's last channel is the style, and where it does not say the colour of the ground, the direction of
three such means is the direction of that colour from gray: any colour, not only one that has a name here. Means are
measured in the deviations of their channels, so that only signs and directions count at all timesteps. `reading` has
the same formulas as weights. Size and place are never open: large and in the middle is what a sentence means that says
nothing of them.
"""

from dataclasses import replace

from colours import VALUES

STYLE, GROUND = -1, slice(-4, -1)
# Grounds that are not named lie around this gray, so far from it.
GRAY, FAR = 140.0, 105.0


def decided(x, scene, prompt):
    """The scene that the input `[channels, height, width]` of one sample asks for, and its ground (RGB)."""
    means = x.mean((1, 2)) / x.square().mean((1, 2)).sqrt()
    if not prompt.style:
        scene = replace(scene, style=int(means[STYLE] < 0))
    if prompt.colour:
        return scene, VALUES[scene.colour]
    return scene, GRAY + FAR * (means[GROUND] / means[GROUND].norm()).cpu().numpy()
