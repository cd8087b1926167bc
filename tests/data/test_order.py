"""Which images make up the batch of an iteration."""

import torch

from residual.data.dataset import Dataset
from residual.data.order import BalancedOrder, Order
from residual.data.resident import ResidentBatches
from residual.models.preprocessing import Preprocessing
from residual.randomness import Stream, mix


def test_balanced_classes_are_equally_frequent() -> None:
    # 2, 6 and 12 images; the class between the last two has none.
    targets = torch.tensor([0] * 2 + [1] * 6 + [3] * 12)
    order = BalancedOrder(targets, 8, 7)
    assert len(order) == 3
    batches = [order(i) for i in range(9)]
    row = torch.cat(batches)
    # 72 images are 24 rounds; in each, every class has its turn.
    assert all(sorted(targets[part].tolist()) == [0, 1, 3] for part in row.split(3))
    # Within a class all images are seen equally often: 24 turns are 12, 4 and 2 rows of permutations.
    assert torch.bincount(row).tolist() == [12] * 2 + [4] * 6 + [2] * 12
    first = row[targets[row] == 3][:12]
    assert sorted(first.tolist()) == list(range(8, 20))
    # A function of the seed and the iteration alone, in any order.
    again = BalancedOrder(targets, 8, 7)
    assert all(torch.equal(again(i), batches[i]) for i in (5, 0, 8, 1))
    assert not torch.equal(BalancedOrder(targets, 8, 8)(0), batches[0])


def test_the_order_is_that_of_resident_batches() -> None:
    order = Order(10, 4, 7)
    images = torch.zeros(10, 1, 2, 2, dtype=torch.uint8)
    targets = numbers = torch.arange(10)
    data = Dataset("ten", tuple("abcdefghij"), images, targets, numbers)
    flat = Preprocessing(torch.zeros(1))
    batches = ResidentBatches(data, flat, 4, pad=0, flip=False, seed=7, device=torch.device("cpu"))
    for iteration in (0, 3):
        assert torch.equal(batches(iteration)[1], order(iteration))
    row = torch.cat([order(i) for i in range(5)])
    assert sorted(row[:10].tolist()) == list(range(10))
    assert sorted(row[10:].tolist()) == list(range(10))
    assert torch.equal(Order(10, 4, 7)(3), order(3))
    assert not torch.equal(Order(10, 4, 8)(0), order(0))


def test_runs_of_earlier_versions_go_on_with_the_images_that_they_would_have_seen() -> None:
    """As it was when results were first committed: all that is drawn in a run follows from these numbers."""
    assert Order(10, 4, 7)(3).tolist() == [9, 4, 0, 6]
    targets = torch.tensor([0] * 2 + [1] * 6 + [3] * 12)
    assert BalancedOrder(targets, 8, 7)(0).tolist() == [5, 0, 17, 13, 1, 4, 0, 18]
    assert {stream.name: mix(7, stream, 3) for stream in Stream} == {
        "WEIGHTS": 5093101976529578930,
        "ORDER": 7964965305340474863,
        "CROPS": 1684239238610986860,
        "DROPOUT": 1729168002221264068,
        "SPLIT": 4064374570681395613,
        "REGIONS": 4633231845053684815,
        "CLASSES": 7940697480675812875,
    }
