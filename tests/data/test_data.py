"""Datasets by name, and the split that holds some images out for choosing."""

from dataclasses import replace

import pytest
import torch

from residual.data import DATASETS, load_dataset, split_validation
from residual.data.dataset import Dataset
from residual.errors import InputError


def test_unknown_names_are_answered_with_the_nearest() -> None:
    assert DATASETS == ("digits", "cifar10")
    with pytest.raises(InputError, match=r"no dataset 'cifar-10'; did you mean cifar10\?"):
        load_dataset("cifar-10", "test")
    with pytest.raises(InputError, match="no split 'validation' of a dataset; known are train, test"):
        load_dataset("digits", "validation")  # type: ignore[arg-type]


def numbered(count: int) -> Dataset:
    ids = torch.arange(count)
    return Dataset("numbers train", ("even", "odd"), ids.byte().view(-1, 1, 1, 1), ids % 2, ids + 1000)


def test_split_is_exact_disjoint_and_keeps_ids() -> None:
    whole = numbered(100)
    train, validation = split_validation(whole, 30, seed=3)
    assert (len(train), len(validation)) == (70, 30)
    assert sorted(train.ids.tolist() + validation.ids.tolist()) == whole.ids.tolist()
    assert train.name == "numbers train (70)"
    assert validation.name == "numbers train (30 for validation)"
    for part in (train, validation):
        assert part.ids.tolist() == sorted(part.ids.tolist())
        assert torch.equal(part.images.flatten().long(), part.ids - 1000)
        assert torch.equal(part.targets, part.ids % 2)
        assert part.classes == whole.classes


def test_split_depends_on_the_seed_alone() -> None:
    def held_out(seed: int) -> list[int]:
        return split_validation(numbered(100), 30, seed)[1].ids.tolist()

    torch.manual_seed(1)
    first = held_out(0)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert held_out(0) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert held_out(1) != first


def test_a_share_is_held_out_of_each_class_alike() -> None:
    whole = numbered(100)
    # 80 even numbers, 20 odd ones.
    whole = replace(whole, targets=(torch.arange(100) % 5 == 0).long())
    train, validation = split_validation(whole, 0.25, seed=0)
    assert torch.bincount(validation.targets).tolist() == [20, 5]
    assert sorted(train.ids.tolist() + validation.ids.tolist()) == whole.ids.tolist()
    assert split_validation(whole, 0.25, seed=0)[1].ids.tolist() == validation.ids.tolist()
    assert split_validation(whole, 0.25, seed=1)[1].ids.tolist() != validation.ids.tolist()
    # However small or large the share is, each class is in both parts.
    for share, counts in ((0.001, [1, 1]), (0.999, [79, 19])):
        assert torch.bincount(split_validation(whole, share, seed=0)[1].targets).tolist() == counts
    alone = replace(whole, targets=(torch.arange(100) == 7).long())
    with pytest.raises(InputError, match=r"the class 'odd' of numbers train has 1 image, too few to hold"):
        split_validation(alone, 0.2, seed=0)


@pytest.mark.parametrize("count", [100, 101, 0, -1])
def test_split_leaves_both_parts_a_image(count: int) -> None:
    with pytest.raises(InputError, match=r"of the 100 images of numbers train.*hold out 1 to 99"):
        split_validation(numbered(100), count, 0)
