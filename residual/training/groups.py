"""BN groups of a mini-batch side by side on a CPU, each on cores of its own.

Where the cores share the work of a layer, they wait for each other at the end of every one, some hundred
times a step, and when another program takes one of them, all wait for that one. Groups know nothing of each
other until their gradients are added: side by side their threads wait once a step.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Barrier

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ..models.own import OwnNetwork
from .batchnorm import averages_of, batch_norms
from .small_maps import with_small_maps

#: Pixels of images that are under way together: groups of larger images take the memory of several, and throw
#: each other's maps out of the caches.
PIXELS = 1 << 20


@dataclass(frozen=True)
class GroupResult:
    """What both passes of a group gave.

    Attributes:
        scores: (n, K), as the model gave them.
        loss: (), not yet weighted.
        gradients: of the parameters that learn, in their order.
        statistics: the means of all BN layers that learn and then their unbiased variances, (numbers,).
    """

    scores: Tensor
    loss: Tensor
    gradients: Sequence[Tensor]
    statistics: Tensor


def at_once(model: nn.Module, groups: Sequence[Tensor]) -> int:
    """Return how many groups of a mini-batch go side by side; 1: one after the other.

    Args:
        groups: their images, (n, C, H, W).
    """
    first = groups[0]
    if first.device.type != "cpu" or not is_function_of_its_input(model):
        return 1
    room = PIXELS // (len(first) * first.shape[-2] * first.shape[-1])
    return max(1, min(len(groups), torch.get_num_threads(), room))


def is_function_of_its_input(model: nn.Module) -> bool:
    """Whether a network draws no random numbers and keeps nothing but BN statistics.

    Of a user's own network that is not known.
    """
    return not isinstance(model, OwnNetwork) and not has_dropout(model)


def has_dropout(model: nn.Module) -> bool:
    """Whether a network draws random numbers as it trains.

    A recorded iteration would repeat them, and groups side by side draw them in any order.
    """
    return any(isinstance(module, _DropoutNd) for module in model.modules())


def one_thread_helps(device: torch.device) -> str:
    """Return what helps on a busy machine where all threads work in each layer: that there is only one."""
    return "--threads 1" if device.type == "cpu" and torch.get_num_threads() > 1 else ""


def _take(threads: int) -> None:
    """Have this thread compute on so many threads, whatever the default is by its first computation."""
    torch.set_num_threads(threads)
    torch.get_num_threads()


class SideBySide:
    """A network several times over, with the same parameters and BN statistics of their own, a thread each.

    Args:
        model: on the CPU, in training mode.
        count: how many groups are under way together, at most as many as PyTorch has threads; each has its
            share of these.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        self.count = count
        self.learning = [p for p in model.parameters() if p.requires_grad]
        self._free: SimpleQueue[nn.Module] = SimpleQueue()
        for _ in range(count):
            own = with_small_maps(model, model.parameters())
            for layer in batch_norms(own):
                # Its moving averages are the statistics of the newest group.
                layer.momentum = 1.0
            self._free.put(own)
        threads = torch.get_num_threads()
        begun = Barrier(count + 1)
        self._pool = ThreadPoolExecutor(count, "group", _take, (threads // count,))
        try:
            for _ in range(count):
                self._pool.submit(begun.wait)
            begun.wait()
        except BaseException:
            # Threads that wait for one that could not begin would keep the process.
            begun.abort()
            raise
        # What a thread takes is the default of those that begin later, too: others' are to have all.
        torch.set_num_threads(threads)

    def __call__(
        self,
        groups: Sequence[tuple[Tensor, Tensor]],
        forward: Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> Generator[GroupResult, None, None]:
        """Yield what each group gives, in their order. Nothing is at work when this ends, however it does.

        Args:
            groups: images and targets.
            forward: from network, images and targets to scores and mean loss.
        """
        images = sum(len(y) for _, y in groups)
        futures = [self._pool.submit(self._both_passes, forward, x, y, len(y) / images) for x, y in groups]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def _both_passes(
        self,
        forward: Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]],
        x: Tensor,
        y: Tensor,
        weight: float,
    ) -> GroupResult:
        model = self._free.get()
        try:
            scores, loss = forward(model, x, y)
            gradients = torch.autograd.grad(loss * weight, self.learning)
            layers = batch_norms(model)
            statistics = torch.cat(averages_of(layers)) if layers else torch.empty(0)
        finally:
            self._free.put(model)
        return GroupResult(scores.detach(), loss.detach(), gradients, statistics)
