"""Work on a stream of items in threads, in order, with bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def in_threads(function: Callable[[S], T], items: Iterable[S], workers: int | None = None) -> Iterator[T]:
    """Yield ``function(item)`` in the items' order, some items ahead of the one that is asked for.

    Decoding and resizing free Python's lock, so threads are enough, and nothing is copied between processes.

    Args:
        workers: threads; by default as many as this process may use cores.
    """
    workers = workers or len(os.sched_getaffinity(0))
    items = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[T]] = deque(pool.submit(function, item) for item in islice(items, 2 * workers))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(items, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
