"""Images of many shapes as batches of one shape each, with bounded memory."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

#: What waits for others of its shape takes no more memory than this.
WAITING_BYTES = 512 * 2**20


def by_shape(
    stream: Iterable[tuple[Sequence[Tensor], T]], size: int, waiting_bytes: int = WAITING_BYTES
) -> Iterator[tuple[list[Tensor], list[T]]]:
    """Group a stream into batches of up to ``size`` items whose tensors have the same shapes.

    A batch is given as soon as it is full. When those that wait take more than ``waiting_bytes``, the largest
    batch goes as it is; at the end all the others follow.

    Args:
        stream: an item's tensors, of the same number for each, and whatever tells the item: its position,
            say, since batches do not come in the stream's order.

    Yields:
        The tensors, each stacked to (n, ...), and what came with the n items, in the stream's order.
    """
    waiting: defaultdict[tuple[torch.Size, ...], list[tuple[Sequence[Tensor], T]]] = defaultdict(list)
    taken = 0
    for tensors, item in stream:
        shapes = tuple(tensor.shape for tensor in tensors)
        waiting[shapes].append((tensors, item))
        taken += _bytes(shapes)
        while len(waiting[shapes]) >= size or taken > waiting_bytes:
            full = len(waiting[shapes]) >= size
            chosen = shapes if full else max(waiting, key=lambda s: len(waiting[s]) * _bytes(s))
            group = waiting.pop(chosen)
            taken -= len(group) * _bytes(chosen)
            yield _stack(group)
    for group in waiting.values():
        if group:
            yield _stack(group)


def _stack(group: Sequence[tuple[Sequence[Tensor], T]]) -> tuple[list[Tensor], list[T]]:
    columns = zip(*(tensors for tensors, _ in group), strict=True)
    return [torch.stack(column) for column in columns], [item for _, item in group]


def _bytes(shapes: Sequence[torch.Size]) -> int:
    """Return the size of uint8 tensors of these shapes."""
    return sum(shape.numel() for shape in shapes)
