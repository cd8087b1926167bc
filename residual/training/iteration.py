"""One whole iteration, from its number to the updated weights: eager, or as one CUDA graph.

A CIFAR network's step is some hundred kernels of a few microseconds each, so what costs time on a GPU is to
launch them. ``CapturedIterations`` records an iteration once (picking the images, augmentation, both
passes, the update, the log's sums) and then only replays it. What differs between iterations is read from
tables on the device that are filled for many iterations at once: the plan of the batch and the learning rate.
Of images in files each batch is sent there before its replay. Nothing is read back.

Compiling and recording are rehearsed before the first iteration, and leave no trace. Where they fail on a
machine (no C compiler, another driver, too little memory), the run goes on kernel by kernel.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..device import send
from ..errors import InputError, Interrupted
from ..models.blocks import Block
from ..models.highway import HighwayLayer
from ..randomness import Stream, mix
from ..recording import record, why
from .batchnorm import GroupedBatchNorm2d
from .step import Step

#: Iterations whose plans are sent to the device at once.
ROWS = 256
#: Batches from files that a GPU has been sent and has not yet done, at most: to launch a recorded iteration
#: takes no time, so nothing else keeps more and more pinned memory from waiting for it.
QUEUED = 2
#: What makes compiling and recording possible.
HELPS = "a C compiler (gcc), Python's headers and a driver for PyTorch's CUDA make it"


class Batches(Protocol):
    """This rank's inputs, float (n, C, H, W), and targets, int64 (n,); ``len``: an epoch's iterations."""

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor]: ...

    def __len__(self) -> int: ...


@runtime_checkable
class PlannedBatches(Batches, Protocol):
    """Batches that are decided on the CPU and assembled on the device (data/resident.py)."""

    def plan(self, iteration: int) -> Tensor: ...

    def assemble(self, plan: Tensor) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class SentBatches(Batches, Protocol):
    """Batches that are read on the CPU and finished on the device (data/stream.py)."""

    @property
    def size(self) -> int: ...

    def read(self, iteration: int) -> tuple[Tensor, ...]: ...

    def finish(self, *parts: Tensor) -> tuple[Tensor, Tensor]: ...


class PreparedIterations(Protocol):
    """Iterations that have something to compile or to record first."""

    def prepare(self, iteration: int) -> None:
        """Do so, before the first iteration of this session; the run's state is as it was, also on errors."""

    def __call__(self, iteration: int) -> None: ...


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
        #: The batch that was prepared with, which comes first.
        self._first: tuple[Tensor, Tensor] | None = None

    def prepare(self, iteration: int) -> None:
        """Run both passes on an iteration's images, so that what is to be compiled is."""
        self._first = self.batches(iteration)
        with unchanged(self.step.state()):
            self.step.rehearse(*self._first)

    def __call__(self, iteration: int) -> None:
        """Do an iteration: images, both passes, update."""
        inputs, targets = self._first or self.batches(iteration)
        self._first = None
        # Dropout draws from the global generator: a pure function of the iteration, like the rest.
        torch.manual_seed(mix(self.seed, Stream.DROPOUT, iteration, self.rank))
        self.step(inputs, targets, self.rate(iteration), iteration)


class Feed(Protocol):
    """What a recorded iteration reads, always at the same place in the device's memory."""

    def fill(self, iteration: int) -> None:
        """Put there what an iteration needs, after the work that reads what was there; they come in order."""

    def state(self) -> list[Tensor]:
        """Return what a recorded iteration changes."""
        ...

    def compile(self) -> None:
        """Have what a recorded iteration does to it compiled at its first call."""

    def __call__(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return inputs, targets, the learning rate and the iteration: this is recorded."""
        ...


class Planned:
    """Batches that lie on the device: plans and learning rates of many iterations, read row by row.

    Args:
        rate: the learning rate of each iteration, known beforehand.
    """

    def __init__(self, batches: PlannedBatches, rate: Callable[[int], float], device: torch.device) -> None:
        self.batches = batches
        self.assemble = batches.assemble
        self.rate = rate
        self.plans = torch.zeros(ROWS, *batches.plan(0).shape, dtype=torch.int64, device=device)
        self.rates = torch.zeros(ROWS, device=device)
        self.numbers = torch.zeros(ROWS, dtype=torch.float64, device=device)
        #: The row of the next iteration; the recorded work itself moves it on.
        self.row = torch.zeros(1, dtype=torch.int64, device=device)
        self._rows = range(0)

    def fill(self, iteration: int) -> None:
        if iteration in self._rows:
            return
        self._rows = range(iteration, iteration + ROWS)
        self.plans.copy_(torch.stack([self.batches.plan(i) for i in self._rows]))
        self.rates.copy_(torch.tensor([self.rate(i) for i in self._rows]))
        self.numbers.copy_(torch.tensor(self._rows, dtype=torch.float64))
        self.row.zero_()

    def state(self) -> list[Tensor]:
        return [self.row]

    def compile(self) -> None:
        self.assemble = torch.compile(self.batches.assemble, dynamic=False)

    def __call__(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        plan = self.plans.index_select(0, self.row)[0]
        rate = self.rates.index_select(0, self.row)[0]
        number = self.numbers.index_select(0, self.row)[0]
        self.row += 1
        return *self.assemble(plan), rate, number


class Sent:
    """Batches that are read from files: each is sent to the device before its iteration."""

    def __init__(self, batches: SentBatches, rate: Callable[[int], float], device: torch.device) -> None:
        self.batches = batches
        self.rate = rate
        self.device = device
        self.rate_there = torch.zeros((), device=device)
        self.number = torch.zeros((), dtype=torch.float64, device=device)
        self.parts: list[Tensor] = []
        self._there: int | None = None
        self._under_way: deque[torch.cuda.Event] = deque()

    def fill(self, iteration: int) -> None:
        # That which was recorded with comes first.
        if iteration == self._there:
            return
        self._wait()
        sent = [send(part, self.device) for part in self.batches.read(iteration)]
        if not self.parts:
            self.parts = [part.clone() for part in sent]
        for mine, part in zip(self.parts, sent, strict=True):
            mine.copy_(part)
        self.rate_there.fill_(self.rate(iteration))
        self.number.fill_(iteration)
        self._there = iteration

    def _wait(self) -> None:
        """Wait until no more iterations than ``QUEUED`` are under way."""
        if self.device.type != "cuda":
            return
        # Blocking: it leaves its core to who reads.
        here = torch.cuda.Event(blocking=True)
        here.record(torch.cuda.current_stream(self.device))
        self._under_way.append(here)
        if len(self._under_way) > QUEUED:
            self._under_way.popleft().synchronize()

    def state(self) -> list[Tensor]:
        return []

    def compile(self) -> None:
        """Some five kernels are not worth it."""

    def __call__(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return *self.batches.finish(*self.parts), self.rate_there, self.number


class CapturedIterations:
    """Iterations on one device, replayed as a CUDA graph; on a CPU the same work, step by step.

    Args:
        step: over a network with ``GroupedBatchNorm2d`` (so that a batch is one pass), without dropout.
        feed: where the images and the learning rates come from.
        device: of the step and the feed.
    """

    def __init__(self, step: Step, feed: Feed, device: torch.device) -> None:
        self.step = step
        self.feed = feed
        self.device = device
        self._replay: Callable[[], None] | None = None

    def compile(self) -> None:
        """Have all but the network and the update compiled at the first call, the network's blocks aside.

        The batch's assembly, the loss and the log's sums are some forty kernels of a few microseconds.
        """
        self.feed.compile()
        self.step.compile()

    def prepare(self, iteration: int) -> None:
        """Record an iteration."""
        self.feed.fill(iteration)
        with unchanged([*self.step.state(), *self.feed.state()]):
            self._replay = record(self._work, self.device)

    def __call__(self, iteration: int) -> None:
        """Do an iteration; they come in order."""
        if self._replay is None:
            self.prepare(iteration)
        assert self._replay is not None
        self.feed.fill(iteration)
        self._replay()

    def _work(self) -> None:
        self.step(*self.feed())


class FastOrEager:
    """Iterations that are compiled or recorded; where this machine cannot do that, kernel by kernel.

    Args:
        fast: to be prepared at the first call.
        eager: what takes their place.
        give_up: called where preparing failed, on this rank or another, with the reason.
        agree: from whether it failed here to whether it failed on any rank.

    Attributes:
        fell_back: whether preparing failed, and iterations go on kernel by kernel.
    """

    def __init__(
        self,
        fast: PreparedIterations,
        eager: Callable[[int], None],
        give_up: Callable[[str], None],
        agree: Callable[[bool], bool],
    ) -> None:
        self.fast = fast
        self.eager = eager
        self.give_up = give_up
        self.agree = agree
        self.fell_back = False
        self._iterate: Callable[[int], None] | None = None

    def __call__(self, iteration: int) -> None:
        """Do an iteration."""
        if self._iterate is None:
            self._iterate = self._prepared(iteration)
        self._iterate(iteration)

    def _prepared(self, iteration: int) -> Callable[[int], None]:
        reason = ""
        try:
            self.fast.prepare(iteration)
        except (InputError, Interrupted):
            raise
        # Whatever a compiler, a driver or an allocator raises. Its frames hold memory: only words are kept.
        except Exception as error:
            reason = why(error, HELPS)
        if not self.agree(bool(reason)):
            return self.fast
        self.give_up(reason or "on another rank")
        self.fell_back = True
        return self.eager


@contextmanager
def unchanged(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Give all tensors their values back at the end, in place."""
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)


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
        if isinstance(module, Block | HighwayLayer):
            inside.update(module.modules())
            module.compile(dynamic=False)
        elif isinstance(module, GroupedBatchNorm2d):
            module.compile(dynamic=False)


def uncompile(model: nn.Module) -> None:
    """Undo ``compile_regions``."""
    for module in model.modules():
        module._compiled_call_impl = None


def without_compilation() -> AbstractContextManager[None]:
    """Run compiled blocks eagerly in this context: another compilation costs more than what runs seldom."""
    return torch.compiler.set_stance("force_eager")
