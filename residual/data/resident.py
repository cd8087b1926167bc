"""A dataset that lives on the training device: batches are indexed and augmented there."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..device import send
from ..randomness import Stream, generator
from .augment import Crops, draw_crops, pad_crop_flip
from .dataset import Dataset
from .order import OrderedBatches


class ResidentBatches(OrderedBatches):
    """The training batches of a dataset in memory.

    Args, beside those of ``OrderedBatches``:
        dataset: the training split.
        prepare: from uint8 (N, C, H, W) to the network's input; the crop follows it, so that padding is
            zero there.
        pad: with flip the augmentation of Section 4.2; 0 and False for none.
        device: where the images live.
        balanced: whether all classes are equally frequent.
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
        balanced: bool = False,
    ) -> None:
        super().__init__(len(dataset), batch, flip, seed, rank, ranks, dataset.targets if balanced else None)
        self.images = dataset.images.to(device)
        self.targets = dataset.targets.to(device)
        self.prepare = prepare
        self.pad = pad

    def plan(self, iteration: int) -> Tensor:
        """Return what this rank takes at an iteration, decided on the CPU: int64 (n, 4).

        The columns: position in the dataset, top and left of the crop, 1 where it is of the flip.
        """
        plan = torch.zeros(self.batch, 4, dtype=torch.int64)
        plan[:, 0] = self.indices(iteration)
        if self.pad or self.flip:
            crops = draw_crops(self.batch, self.pad, self.flip, generator(self.seed, Stream.CROPS, iteration))
            plan[:, 1], plan[:, 2], plan[:, 3] = crops.top, crops.left, crops.flipped
        return plan[self.mine]

    def assemble(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs and targets of a plan that is on the images' device."""
        indices, top, left, flipped = plan.unbind(1)
        inputs = self.prepare(self.images[indices])
        if self.pad or self.flip:
            inputs = pad_crop_flip(inputs, self.pad, Crops(top, left, flipped.bool()))
        return inputs, self.targets[indices]

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return this rank's inputs, float (n, C, H, W), and targets, int64 (n,)."""
        return self.assemble(send(self.plan(iteration), self.images.device))
