"""Tests of a network that is still learning, recorded as CUDA graphs.

A run tests its network every few hundred iterations on a handful of batches. Folding BN anew takes some dozen
small kernels a layer each time, and scoring a batch some four: both are recorded at the first test, and
replayed at all others.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..models import Classifier
from ..models.inference import fold_again, fold_batchnorm
from ..recording import record, why
from .testing import Prepare
from .views import Views, score

#: What makes recording possible.
HELPS = "a driver for PyTorch's CUDA makes it"


class RecordedTests:
    """A network made ready to be tested, again and again, and the scores of its batches, both replayed.

    Batches of the first one's shape are replayed; another, a dataset's last one, say, is scored kernel by
    kernel, and so are all where recording fails: by the same kernels, to the same numbers.

    Args:
        network: in float32 and in channels-last format, on its device; all its tensors are changed in place.
        device: where it is.
        give_up: called once, with the reason, where recording failed.
    """

    def __init__(self, network: Classifier, device: torch.device, give_up: Callable[[str], None]) -> None:
        self.network = network
        self.device = device
        self.give_up = give_up
        #: The folded copy, whose addresses are recorded; made at the first test.
        self._copy: Classifier | None = None
        self._fold: Callable[[], None] = self._fold_kernel_by_kernel
        #: What the recorded scores are of; None before the first batch.
        self._recorded: tuple[Any, ...] | None = None
        self._replay: Callable[[], None] | None = None
        self._crops: list[Tensor] = []
        self._rows = torch.empty(0)

    def ready(self) -> Classifier:
        """Return the network as it is now, ready to be tested: a copy, until this is called again."""
        if self._copy is None:
            self._copy = fold_batchnorm(self.network).to(memory_format=torch.channels_last)
        else:
            self._fold()
        return self._copy

    def score(self, model: Classifier, prepare: Prepare, crops: Sequence[Tensor], views: Views) -> Tensor:
        """Return what ``score`` of views.py does.

        Args:
            model: of ``ready``.
            prepare, crops, views: as there.
        """
        asked = (model, prepare, views, [part.shape for part in crops])
        if self._recorded is None:
            self._recorded = asked
            self._record(model, prepare, crops, views)
        if self._replay is None or asked != self._recorded:
            return score(model, prepare, crops, views)
        for mine, part in zip(self._crops, crops, strict=True):
            mine.copy_(part)
        self._replay()
        # The next batch is written over it.
        return self._rows.clone()

    def _record(self, model: Classifier, prepare: Prepare, crops: Sequence[Tensor], views: Views) -> None:
        reason = ""
        try:
            mine = [part.clone() for part in crops]
            rows = torch.zeros(len(mine[0]), model.classes, device=self.device)

            def work() -> None:
                rows.copy_(score(model, prepare, mine, views))

            fold, replay = record(self._fold_kernel_by_kernel, self.device), record(work, self.device)
            self._crops, self._rows, self._fold, self._replay = mine, rows, fold, replay
        # Whatever a driver or an allocator raises. Its frames hold memory: only words are kept.
        except Exception as error:
            reason = why(error, HELPS)
        if reason:
            self.give_up(reason)

    def _fold_kernel_by_kernel(self) -> None:
        assert self._copy is not None
        fold_again(self._copy, self.network)
