"""Times one VAE decoding in OpenVINO, PyTorch and ours: see `race.py`.

    vae_decode.py DIR --ours "mixdq bench {component} -m {model} -t {threads} --precision {precision}
                             --inputs {inputs} --save {save} --serve"
"""

import race

if __name__ == "__main__":
    race.run("vae")
