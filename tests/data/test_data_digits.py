"""The digits that come with scikit-learn."""

from pathlib import Path

import torch

from residual.data import load_dataset


def test_digits_are_scaled_and_every_fifth_is_for_testing() -> None:
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    assert (len(train), len(test)) == (1438, 359)
    assert train.classes == tuple("0123456789")
    for part in (train, test):
        assert part.images.dtype == torch.uint8
        assert part.images.shape == (len(part), 1, 8, 8)
        assert part.targets.dtype == part.ids.dtype == torch.int64
    assert test.ids.tolist() == list(range(4, 1797, 5))
    assert sorted(train.ids.tolist() + test.ids.tolist()) == list(range(1797))
    # The first image's first line is 0 0 5 13 9 1 0 0 of 16, and it shows a zero.
    assert train.images[0, 0, 0].tolist() == [round(v * 255 / 16) for v in (0, 0, 5, 13, 9, 1, 0, 0)]
    assert train.images.max() == 255
    assert train.targets[0] == 0


def test_the_digits_need_no_folder(tmp_path: Path) -> None:
    assert len(load_dataset("digits", "test", tmp_path / "absent")) == 359
    assert not list(tmp_path.iterdir())
