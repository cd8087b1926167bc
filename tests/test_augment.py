"""The augmentation against a slow reference, and the batches' order."""

import torch
from torch import Tensor

from residual.data.augment import Crops, draw_crops, pad_crop_flip
from residual.data.dataset import Dataset
from residual.data.resident import ResidentBatches

PAD = 4


def slow_pad_crop_flip(picture: Tensor, pad: int, top: int, left: int, mirrored: bool) -> Tensor:
    """One picture (C, H, W), pixel by pixel, in the paper's words: pad, mirror, crop."""
    channels, height, width = picture.shape
    padded = torch.zeros(channels, height + 2 * pad, width + 2 * pad)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                padded[c, y + pad, x + pad] = picture[c, y, x]
    if mirrored:
        flipped = torch.empty_like(padded)
        for x in range(padded.shape[2]):
            flipped[:, :, x] = padded[:, :, padded.shape[2] - 1 - x]
        padded = flipped
    result = torch.empty_like(picture)
    for y in range(height):
        for x in range(width):
            result[:, y, x] = padded[:, top + y, left + x]
    return result


def test_equals_the_slow_reference() -> None:
    x = torch.randn(24, 3, 10, 7)
    crops = draw_crops(24, PAD, True, torch.Generator().manual_seed(1))
    # The extremes as well, whatever was drawn.
    crops.top[:4] = torch.tensor([0, 0, 2 * PAD, 2 * PAD])
    crops.left[:4] = torch.tensor([0, 2 * PAD, 0, 2 * PAD])
    crops.mirrored[:4] = torch.tensor([False, True, True, False])
    fast = pad_crop_flip(x.contiguous(memory_format=torch.channels_last), PAD, crops)
    for i in range(24):
        slow = slow_pad_crop_flip(x[i], PAD, int(crops.top[i]), int(crops.left[i]), bool(crops.mirrored[i]))
        assert torch.equal(fast[i], slow)
    assert fast.is_contiguous(memory_format=torch.channels_last)


def test_the_middle_crop_is_the_picture() -> None:
    x = torch.randn(2, 1, 5, 5)
    middle = torch.full((2,), PAD)
    same = pad_crop_flip(x, PAD, Crops(middle, middle, torch.tensor([False, True])))
    assert torch.equal(same[0], x[0])
    assert torch.equal(same[1], x[1].flip(-1))


def test_draws_are_uniform() -> None:
    crops = draw_crops(90_000, PAD, True, torch.Generator().manual_seed(0))
    for corner in (crops.top, crops.left):
        counts = torch.bincount(corner, minlength=9)
        assert len(counts) == 9
        assert counts.min() > 9_600
        assert counts.max() < 10_400
    assert abs(crops.mirrored.float().mean() - 0.5) < 0.01
    # Rows and columns are drawn independently.
    assert abs(torch.corrcoef(torch.stack([crops.top, crops.left]).float())[0, 1]) < 0.02
    assert not draw_crops(1000, PAD, False, torch.Generator()).mirrored.any()


def pictures(count: int) -> Dataset:
    numbers = torch.arange(count)
    images = numbers[:, None, None, None].expand(count, 1, 2, 2).to(torch.uint8)
    return Dataset("numbers", ("a",), images, numbers, numbers)


def batches(count: int, batch: int, rank: int = 0, ranks: int = 1, seed: int = 0) -> ResidentBatches:
    return ResidentBatches(
        pictures(count), lambda x: x.float(), batch, 0, False, seed, torch.device("cpu"), rank, ranks
    )


def test_every_picture_once_an_epoch_in_another_order() -> None:
    made = batches(20, 8)
    seen = torch.cat([made(i)[1] for i in range(5)])  # 40 pictures: two epochs, one batch over the border
    assert len(made) == 3
    first, second = seen[:20], seen[20:]
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(20))
    assert not torch.equal(first, second)


def test_a_batch_larger_than_the_data_set() -> None:
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
