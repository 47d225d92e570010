"""Prints the structural similarity that a test of crates/quant/src/metrics.rs expects, as scikit-image computes it."""

import numpy as np
from skimage.metrics import structural_similarity


def picture(factor, modulus):
    return (np.arange(20 * 24 * 3) * factor % modulus).astype(np.uint8).reshape(20, 24, 3)


print(repr(structural_similarity(picture(7, 251), picture(7, 239), gaussian_weights=True, sigma=1.5,
                                 use_sample_covariance=False, data_range=255, channel_axis=2)))
