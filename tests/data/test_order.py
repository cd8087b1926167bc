"""Which images make up the batch of an iteration."""

import torch

from residual.data.order import Order


def test_the_order_is_that_of_resident_batches() -> None:
    order = Order(10, 4, 7)
    row = torch.cat([order(i) for i in range(5)])
    assert sorted(row[:10].tolist()) == list(range(10))
    assert sorted(row[10:].tolist()) == list(range(10))
    assert torch.equal(Order(10, 4, 7)(3), order(3))
    assert not torch.equal(Order(10, 4, 8)(0), order(0))
