"""The handwritten digits inside scikit-learn: a dataset that needs no download."""

from typing import Literal

import torch

from .dataset import Dataset


def load_digits(split: Literal["train", "test"]) -> Dataset:
    """Return 1,438 images to train on or 359 to test on, uint8 (N, 1, 8, 8), of the digits 0 to 9.

    The dataset has no official split; here every fifth image is a test image.

    Source: the test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI
    Machine Learning Repository, 1998, as scikit-learn holds it.
    """
    # Importing scikit-learn takes a second or two, which every other command would pay.
    from sklearn.datasets import load_digits as load

    stored = load()
    # The stored grey values are the whole numbers 0 to 16.
    images = torch.from_numpy(stored.images).mul(255 / 16).round().byte().unsqueeze(1)
    targets = torch.from_numpy(stored.target).long()
    ids = torch.arange(len(targets))
    everything = Dataset("digits", tuple("0123456789"), images, targets, ids)
    is_test = ids % 5 == 4
    return everything.subset(ids[is_test if split == "test" else ~is_test], f"digits {split}")
