"""Batches of a dataset in memory: which images, in what order, shared by ranks."""

import torch
import torch.nn.functional as F
from torch import Tensor

from residual.data.dataset import Dataset
from residual.data.resident import ResidentBatches


def images(count: int) -> Dataset:
    numbers = torch.arange(count)
    images = numbers[:, None, None, None].expand(count, 1, 2, 2).to(torch.uint8)
    return Dataset("numbers", ("a",), images, numbers, numbers)


def batches(count: int, batch: int, rank: int = 0, ranks: int = 1, seed: int = 0) -> ResidentBatches:
    return ResidentBatches(
        images(count), lambda x: x.float(), batch, 0, False, seed, torch.device("cpu"), rank, ranks
    )


def test_every_image_once_an_epoch_in_another_order() -> None:
    made = batches(20, 8)
    seen = torch.cat([made(i)[1] for i in range(5)])  # 40 images: two epochs, one batch over the border
    assert len(made) == 3
    first, second = seen[:20], seen[20:]
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(20))
    assert not torch.equal(first, second)


def test_a_batch_larger_than_the_dataset() -> None:
    targets = batches(5, 12)(0)[1]
    assert sorted(torch.bincount(targets).tolist()) == [2, 2, 2, 3, 3]


def test_a_batch_is_a_function_of_seed_and_iteration() -> None:
    forward = [batches(20, 8)(i)[1] for i in range(6)]
    made = batches(20, 8)
    for i in (5, 0, 3, 1, 4, 2):
        assert torch.equal(made(i)[1], forward[i])
    assert not torch.equal(batches(20, 8, seed=1)(0)[1], forward[0])


def test_ranks_share_the_batch_and_its_crops() -> None:
    images = torch.randint(0, 256, (20, 3, 6, 6), dtype=torch.uint8)
    data = Dataset("noise", ("a",), images, torch.arange(20), torch.arange(20))

    def prepare(x: Tensor) -> Tensor:
        return x.float() - 100

    def make(rank: int, ranks: int) -> ResidentBatches:
        return ResidentBatches(data, prepare, 8, 2, True, 3, torch.device("cpu"), rank, ranks)

    whole = make(0, 1)
    plans = [whole.plan(iteration) for iteration in range(4)]
    for iteration, plan in enumerate(plans):
        inputs, targets = whole(iteration)
        parts = [make(rank, 2)(iteration) for rank in range(2)]
        assert torch.equal(inputs, torch.cat([x for x, _ in parts]))
        assert torch.equal(targets, torch.cat([y for _, y in parts]))
        assert torch.equal(targets, plan[:, 0])
        # Zeros are around what the network sees, not around pixels: the mean is subtracted before.
        for x, (position, top, left, flipped) in zip(inputs, plan.tolist(), strict=True):
            padded = F.pad(prepare(images[position]), (2, 2, 2, 2))
            padded = padded.flip(-1) if flipped else padded
            assert torch.equal(x, padded[:, top : top + 6, left : left + 6])
    tops, lefts, flips = torch.cat(plans)[:, 1:].unbind(1)
    assert sorted(set(tops.tolist())) == sorted(set(lefts.tolist())) == [0, 1, 2, 3, 4]
    assert 8 <= int(flips.sum()) <= 24
