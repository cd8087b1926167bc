"""A data set that lives on the training device: batches are indexed and augmented there."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..randomness import Stream, generator
from .augment import Crops, draw_crops, pad_crop_flip
from .dataset import Dataset
from .order import Order


class ResidentBatches:
    """The training batches, each a pure function of the seed and the iteration.

    A resumed run and any number of ranks see what one uninterrupted process sees (see ``Order``).

    Args:
        dataset: the training part.
        prepare: from uint8 (N, C, H, W) to the network's input; the crop follows it, so that padding is
            zero there.
        batch: pictures of one iteration over all ranks.
        pad, flip: the augmentation of Section 4.2; pad 0 and flip False for none.
        seed: of order and augmentation.
        device: where the pictures live.
        rank, ranks: this process takes the rank-th of ``ranks`` equal stretches of each batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        prepare: Callable[[Tensor], Tensor],
        batch: int,
        pad: int,
        flip: bool,
        seed: int,
        device: torch.device,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.images = dataset.images.to(device)
        self.targets = dataset.targets.to(device)
        self.prepare = prepare
        self.batch = batch
        self.pad = pad
        self.flip = flip
        self.seed = seed
        self.mine = slice(rank * batch // ranks, (rank + 1) * batch // ranks)
        #: Positions in the data set of the whole batch of an iteration, int64 (batch,).
        self.indices = Order(len(dataset), batch, seed)

    def __len__(self) -> int:
        """Batches of an epoch, rounded up."""
        return len(self.indices)

    def plan(self, iteration: int) -> Tensor:
        """Return what this rank takes at an iteration, decided on the CPU: int64 (n, 4).

        The columns: position in the data set, top and left of the crop, 1 where it is of the mirror image.
        """
        plan = torch.zeros(self.batch, 4, dtype=torch.int64)
        plan[:, 0] = self.indices(iteration)
        if self.pad or self.flip:
            crops = draw_crops(self.batch, self.pad, self.flip, generator(self.seed, Stream.CROPS, iteration))
            plan[:, 1], plan[:, 2], plan[:, 3] = crops.top, crops.left, crops.mirrored
        return plan[self.mine]

    def assemble(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs and targets of a plan that is on the pictures' device."""
        indices, top, left, mirrored = plan.unbind(1)
        inputs = self.prepare(self.images[indices])
        if self.pad or self.flip:
            inputs = pad_crop_flip(inputs, self.pad, Crops(top, left, mirrored.bool()))
        return inputs, self.targets[indices]

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return this rank's inputs, float (n, C, H, W), and targets, int64 (n,)."""
        return self.assemble(self.plan(iteration).to(self.images.device))
