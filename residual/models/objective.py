"""What a network is trained for where its scores' cross-entropy is not all of it.

A network says so itself (``Classifier.objective``): by companion classifiers on its inner maps (DSN,
GoogLeNet), or by what a teacher knows (FitNet). The loop knows no network: it trains what it is given.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .classifier import Classifier

#: How much of the run is over, from 0 to 1; on a GPU it may be a tensor ().
Progress = float | Tensor


class Objective(nn.Module):
    """A network, what is trained beside it, and the loss of both.

    Checkpoints hold all of it. A run's weights are the network's alone: the rest has done its work.

    Attributes:
        network: what is tested, kept and used.
    """

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what the loss is of: the network's scores, (N, K), and then whatever it needs besides."""
        raise NotImplementedError

    def loss(self, outputs: Sequence[Tensor], targets: Tensor, progress: Progress) -> Tensor:
        """Return the mean loss of images, ().

        Args:
            outputs: of ``forward``, at least float32.
            targets: int64 (N,).
        """
        raise NotImplementedError


class DeepSupervision(Objective):
    """Companion classifiers: the loss is the scores' cross-entropy and, weighted, that of each companion.

    Args:
        network: with ``scores_and_maps``, which gives (N, K) and the maps that companions see.
        companions: from their map to scores (N, K) each.
        weight: of all companions, by how much of the run is over.
    """

    network: "DeeplySupervised"

    def __init__(
        self,
        network: "DeeplySupervised",
        companions: Sequence[nn.Module],
        weight: Callable[[Progress], Progress],
    ) -> None:
        super().__init__(network)
        self.companions = nn.ModuleList(companions)
        self.weight = weight

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scores, maps = self.network.scores_and_maps(x)
        return scores, *(see(seen) for see, seen in zip(self.companions, maps, strict=True))

    def loss(self, outputs: Sequence[Tensor], targets: Tensor, progress: Progress) -> Tensor:
        scores, *companions = outputs
        below = sum(F.cross_entropy(each, targets) for each in companions)
        return F.cross_entropy(scores, targets) + self.weight(progress) * below


class DeeplySupervised(Classifier):
    """A network whose inner maps have companion classifiers in training."""

    def scores_and_maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the scores, (N, K), and the maps that companions see, each (N, C, h, w)."""
        raise NotImplementedError
