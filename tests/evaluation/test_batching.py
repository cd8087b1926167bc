"""Batches of one shape from images of many."""

import torch

from residual.evaluation.batching import by_shape


def test_batches_have_one_shape_and_miss_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = torch.randint(1, 4, (50, 2), generator=generator).tolist()
    stream = [([torch.full((3, h, w), n, dtype=torch.uint8)], n) for n, (h, w) in enumerate(shapes)]
    seen = []
    for (batch,), numbers in by_shape(stream, 4):
        assert 1 <= len(batch) == len(numbers) <= 4
        assert numbers == sorted(numbers)
        for image, n in zip(batch, numbers, strict=True):
            assert torch.equal(image, stream[n][0][0])
        seen += numbers
    assert sorted(seen) == list(range(50))


def test_what_waits_is_bounded() -> None:
    taken = given = most = 0

    def stream():  # type: ignore[no-untyped-def]
        nonlocal taken, most
        for n in range(1, 101):  # a hundred shapes: no batch would ever be full
            taken += n
            most = max(most, taken - given)
            yield [torch.zeros(1, 1, n, dtype=torch.uint8)], n

    for (batch,), _ in by_shape(stream(), 8, waiting_bytes=500):
        given += batch.numel()
    assert given == taken == 5050
    assert most <= 500 + 100


def test_batches_come_in_order_where_all_images_have_one_shape() -> None:
    stream = [([torch.zeros(1, 2, 2, dtype=torch.uint8)], n) for n in range(10)]
    assert [n for _, numbers in by_shape(stream, 3) for n in numbers] == list(range(10))
