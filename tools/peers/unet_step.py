"""Times one UNet step in OpenVINO, PyTorch and ours: see `race.py`.

    unet_step.py DIR --ours "mixdq bench {component} -m {model} -t {threads} --precision {precision}
                             --inputs {inputs} --save {save} --serve"
"""

import race

if __name__ == "__main__":
    race.run("unet")
