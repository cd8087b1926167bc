"""One whole iteration, from its number to the updated weights: eager, or as one CUDA graph.

A CIFAR network's step is some hundred kernels of a few microseconds each, so what costs time on a GPU is to
launch them. ``CapturedIterations`` records an iteration once (picking the images, augmentation, both
passes, the update, the log's sums) and then only replays it. What differs between iterations is read from
tables on the device that are filled for many iterations at once: the plan of the batch and the learning rate.
Nothing is read back.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ..models.blocks import Block
from ..randomness import Stream, mix
from .batchnorm import GroupedBatchNorm2d
from .step import Step

#: Iterations whose plans are sent to the device at once.
ROWS = 256
#: Iterations done eagerly before the capture, so that libraries have set themselves up and blocks are
#: compiled. They are iterations of the run like all others.
WARM_UP = 3


class Batches(Protocol):
    """This rank's inputs, float (n, C, H, W), and targets, int64 (n,); ``len``: an epoch's iterations."""

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor]: ...

    def __len__(self) -> int: ...


@runtime_checkable
class PlannedBatches(Batches, Protocol):
    """Batches that are decided on the CPU and assembled on the device (data/resident.py)."""

    def plan(self, iteration: int) -> Tensor: ...

    def assemble(self, plan: Tensor) -> tuple[Tensor, Tensor]: ...


class EagerIterations:
    """Iterations as PyTorch runs them, kernel by kernel, on any device and any number of ranks."""

    def __init__(
        self, step: Step, batches: Batches, rate: Callable[[int], float], seed: int, rank: int
    ) -> None:
        self.step = step
        self.batches = batches
        self.rate = rate
        self.seed = seed
        self.rank = rank

    def __call__(self, iteration: int) -> None:
        """Do an iteration: images, both passes, update."""
        # Dropout draws from the global generator: a pure function of the iteration, like the rest.
        torch.manual_seed(mix(self.seed, Stream.DROPOUT, iteration, self.rank))
        inputs, targets = self.batches(iteration)
        self.step(inputs, targets, self.rate(iteration), iteration)


class CapturedIterations:
    """Iterations on one device, replayed as a CUDA graph; on a CPU the same work, step by step.

    Args:
        step: over a network with ``GroupedBatchNorm2d`` (so that a batch is one pass), without dropout.
        batches: resident on the step's device.
        rate: the learning rate of each iteration, known beforehand.
        device: of all of them.
    """

    def __init__(
        self, step: Step, batches: PlannedBatches, rate: Callable[[int], float], device: torch.device
    ) -> None:
        self.step = step
        self.batches = batches
        self.rate = rate
        self.device = device
        self.plans = torch.zeros(ROWS, *batches.plan(0).shape, dtype=torch.int64, device=device)
        self.rates = torch.zeros(ROWS, device=device)
        self.numbers = torch.zeros(ROWS, dtype=torch.float64, device=device)
        #: The row of the next iteration; the recorded work itself moves it on.
        self.row = torch.zeros(1, dtype=torch.int64, device=device)
        self._rows = range(0)
        self._done = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, iteration: int) -> None:
        """Do an iteration; they come in order."""
        if iteration not in self._rows:
            self._fill(iteration)
        if self._graph:
            self._graph.replay()
        elif self.device.type != "cuda":
            self._work()
        elif self._done < WARM_UP:
            # Not on the default stream, as PyTorch's notes on CUDA graphs ask for.
            stream = torch.cuda.Stream(self.device)
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                self._work()
            torch.cuda.current_stream(self.device).wait_stream(stream)
        else:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._work()
            self._graph = graph
            graph.replay()  # the capture recorded the iteration and did nothing
        self._done += 1

    def _work(self) -> None:
        plan = self.plans.index_select(0, self.row)[0]
        rate = self.rates.index_select(0, self.row)[0]
        number = self.numbers.index_select(0, self.row)[0]
        inputs, targets = self.batches.assemble(plan)
        self.step(inputs, targets, rate, number)
        self.row += 1

    def _fill(self, first: int) -> None:
        """Send the tables of the iterations from ``first`` on, after the work that reads the old ones."""
        self._rows = range(first, first + ROWS)
        self.plans.copy_(torch.stack([self.batches.plan(i) for i in self._rows]))
        self.rates.copy_(torch.tensor([self.rate(i) for i in self._rows]))
        self.numbers.copy_(torch.tensor(self._rows, dtype=torch.float64))
        self.row.zero_()


def compile_regions(model: nn.Module) -> None:
    """Have each block compiled when it is first called; blocks of one shape share the compiled code.

    So a network of 1202 layers costs what one of 20 does: a handful of distinct blocks. BN layers outside
    blocks are compiled by themselves.
    """
    # One entry for each distinct shape, width and stride: Table 1's networks have more than the default, 8.
    torch._dynamo.config.recompile_limit = 64
    inside: set[nn.Module] = set()
    for module in model.modules():
        if module in inside:
            continue
        if isinstance(module, Block):
            inside.update(module.modules())
            module.compile(dynamic=False)
        elif isinstance(module, GroupedBatchNorm2d):
            module.compile(dynamic=False)


def without_compilation() -> AbstractContextManager[None]:
    """Run compiled blocks eagerly in this context: another compilation costs more than what runs seldom."""
    return torch.compiler.set_stance("force_eager")


def has_dropout(model: nn.Module) -> bool:
    """Whether a network draws random numbers as it trains, which a recorded iteration would repeat."""
    return any(isinstance(module, _DropoutNd) for module in model.modules())
