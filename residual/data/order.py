"""The order of the training pictures: an endless row of epochs, each a new permutation of the data set."""

import torch
from torch import Tensor

from ..randomness import Stream, generator


class Order:
    """Which pictures make up the batch of an iteration: a pure function of the seed and the iteration.

    Batch i is the i-th stretch of the row of epochs, so every picture is seen once an epoch and no batch is
    short; nothing depends on what came before, so a resumed run and any number of ranks agree.

    Args:
        size: of the data set.
        batch: pictures of one iteration over all ranks.
        seed: of the permutations.
    """

    def __init__(self, size: int, batch: int, seed: int) -> None:
        self.size = size
        self.batch = batch
        self.seed = seed
        self._orders: dict[int, Tensor] = {}

    def __len__(self) -> int:
        """Batches of an epoch, rounded up."""
        return -(-self.size // self.batch)

    def __call__(self, iteration: int) -> Tensor:
        """Return the positions in the data set of an iteration's whole batch, int64 (batch,)."""
        positions = torch.arange(iteration * self.batch, (iteration + 1) * self.batch)
        epochs = positions // self.size
        return torch.cat(
            [self._order(epoch)[positions[epochs == epoch] % self.size] for epoch in epochs.unique().tolist()]
        )

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            # A batch may reach over the end of an epoch; a small data set's over several.
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = torch.randperm(
                self.size, generator=generator(self.seed, Stream.ORDER, epoch)
            )
        return self._orders[epoch]
