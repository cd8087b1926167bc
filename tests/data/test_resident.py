"""Batches of a dataset in memory: which images, in what order, shared by ranks."""

import torch

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

    def make(rank: int, ranks: int) -> ResidentBatches:
        device = torch.device("cpu")
        return ResidentBatches(data, lambda x: x.float(), 8, 2, True, 3, device, rank, ranks)

    whole = make(0, 1)
    for iteration in range(4):
        inputs, targets = whole(iteration)
        parts = [make(rank, 2)(iteration) for rank in range(2)]
        assert torch.equal(inputs, torch.cat([x for x, _ in parts]))
        assert torch.equal(targets, torch.cat([y for _, y in parts]))
