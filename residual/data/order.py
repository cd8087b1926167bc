"""The order of the training images: an endless row of epochs, each a new permutation of the dataset."""

from typing import Any

import torch
from torch import Tensor

from ..randomness import Stream, generator
from .threads import Prefetch


class Order:
    """Which images make up the batch of an iteration: a pure function of the seed and the iteration.

    Batch i is the i-th stretch of the row of epochs, so every image is seen once an epoch and no batch is
    short; nothing depends on what came before, so a resumed run and any number of ranks agree.

    Args:
        size: of the dataset.
        batch: images of one iteration over all ranks.
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
        """Return the positions in the dataset of an iteration's whole batch, int64 (batch,)."""
        positions = torch.arange(iteration * self.batch, (iteration + 1) * self.batch)
        epochs = positions // self.size
        return torch.cat(
            [self._order(epoch)[positions[epochs == epoch] % self.size] for epoch in epochs.unique().tolist()]
        )

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            # A batch may reach over the end of an epoch; a small dataset's over several.
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = torch.randperm(
                self.size, generator=generator(self.seed, Stream.ORDER, epoch)
            )
        return self._orders[epoch]


class BalancedOrder(Order):
    """An order in which all classes are equally frequent: rounds in which each of them has its turn once.

    A class's turns take its images in the order of an endless row of permutations, so within a class every
    image is seen equally often. An epoch has as many images as the dataset.

    Args, beside those of ``Order``:
        targets: of the dataset's images, int64 (N,). A class without images has no turn.
    """

    def __init__(self, targets: Tensor, batch: int, seed: int) -> None:
        super().__init__(len(targets), batch, seed)
        targets = targets.cpu()
        self.members = [(targets == target).nonzero()[:, 0] for target in targets.unique().tolist()]
        self._rows: dict[int, tuple[int, Tensor]] = {}

    def __call__(self, iteration: int) -> Tensor:
        """Return the positions in the dataset of an iteration's whole batch, int64 (batch,)."""
        first, last = iteration * self.batch, (iteration + 1) * self.batch
        rounds = range(first // len(self.members), -(-last // len(self.members)))
        row = torch.cat([self._round(number) for number in rounds])
        start = first - rounds.start * len(self.members)
        return row[start : start + self.batch]

    def _round(self, number: int) -> Tensor:
        turns = torch.randperm(len(self.members), generator=generator(self.seed, Stream.CLASSES, number))
        return torch.stack([self._image(k, number) for k in turns.tolist()])

    def _image(self, k: int, turn: int) -> Tensor:
        """Return the position of the image that a class takes in its turn, int64 ()."""
        members = self.members[k]
        epoch, place = divmod(turn, len(members))
        if self._rows.get(k, (-1,))[0] != epoch:
            # The first class has the sequence of the turns in the round of that number: each by itself is as
            # random, and runs that were begun so go on.
            random = generator(self.seed, Stream.CLASSES, epoch, k)
            self._rows[k] = epoch, members[torch.randperm(len(members), generator=random)]
        return self._rows[k][1][place]


class OrderedBatches:
    """What all training batches have: each is a pure function of the seed and the iteration.

    A resumed run and any number of ranks see what one uninterrupted process sees (see ``Order``).

    Args:
        images: of the training split.
        batch: images of one iteration over all ranks.
        flip: whether half of the images are flipped.
        seed: of order and augmentation.
        rank, ranks: this process takes the rank-th of ``ranks`` equal stretches of each batch.
        balanced: the images' targets, int64 (N,), where all classes are to be equally frequent.

    Attributes:
        indices: from an iteration to the positions of its whole batch in the split, int64 (batch,).
        mine: this rank's stretch of the batch.
        unreadable: what is wrong with each image that was left out, by its id.
        prefetch: what reads ahead; None where the images are in memory.
    """

    prefetch: Prefetch[Any, Any] | None = None

    def __init__(
        self,
        images: int,
        batch: int,
        flip: bool,
        seed: int,
        rank: int,
        ranks: int,
        balanced: Tensor | None = None,
    ) -> None:
        self.batch = batch
        self.flip = flip
        self.seed = seed
        self.indices = (
            Order(images, batch, seed) if balanced is None else BalancedOrder(balanced, batch, seed)
        )
        self.mine = slice(rank * batch // ranks, (rank + 1) * batch // ranks)
        self.unreadable: dict[str, str] = {}

    def __len__(self) -> int:
        """Batches of an epoch, rounded up."""
        return len(self.indices)

    @property
    def waited(self) -> float:
        """Seconds spent waiting for images."""
        return self.prefetch.waited if self.prefetch else 0.0

    def close(self) -> None:
        """Drop what is under way; the next call starts anew."""
        if self.prefetch:
            self.prefetch.close()
