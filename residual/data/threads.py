"""Work done in threads, in order and ahead: the one prefetch of training, testing and prediction.

Decoding and resizing free Python's lock, opening a file does not: where there are many cores, what a thread
does is handed to another process (helpers.py). Ranks on one machine share its cores.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from threading import Condition
from typing import Generic, TypeVar

from .. import signals
from ..distributed import cores
from ..errors import InputError

S = TypeVar("S")
T = TypeVar("T")
C = TypeVar("C")


def in_threads(
    function: Callable[[S], T],
    items: Iterable[S],
    workers: int | None = None,
    ahead: int | None = None,
) -> Iterator[T]:
    """Yield ``function(item)`` in the items' order, some items ahead of the one that is asked for.

    Args:
        workers: threads; None for as many as there are cores for this process.
        ahead: items under way; None for two a thread.
    """
    workers = workers or cores()
    items = iter(items)
    with ThreadPoolExecutor(workers, "decode") as pool:
        under_way: deque[Future[T]] = deque(
            pool.submit(function, item) for item in islice(items, ahead or 2 * workers)
        )
        try:
            while under_way:
                result = under_way.popleft().result()
                under_way.extend(pool.submit(function, item) for item in islice(items, 1))
                yield result
        finally:
            for future in under_way:
                future.cancel()


class Prefetch(Generic[C, T]):
    """What each iteration needs, begun some iterations before it is asked for.

    Args:
        begin: from an iteration to what its tasks share (an array that they fill, say) and the tasks.
        ahead: iterations under way, the one that is asked for among them.
        workers: threads; None for as many as there are cores for this process.

    Attributes:
        waited: seconds spent waiting for tasks.
    """

    def __init__(
        self,
        begin: Callable[[int], tuple[C, list[Callable[[], T]]]],
        ahead: int,
        workers: int | None = None,
    ) -> None:
        self.begin = begin
        self.ahead = ahead
        self.waited = 0.0
        self._pool = ThreadPoolExecutor(workers or cores(), "decode")
        #: The iterations under way, in order: number, what the tasks share, a future a task.
        self._under_way: deque[tuple[int, C, list[Future[T]]]] = deque()

    def __call__(self, iteration: int) -> tuple[C, list[T]]:
        """Return what an iteration's tasks share, and their results in order, or raise an error of theirs."""
        if not self._under_way or self._under_way[0][0] != iteration:
            self.close()
        first = self._under_way[-1][0] + 1 if self._under_way else iteration
        for number in range(first, iteration + self.ahead):
            shared, tasks = self.begin(number)
            self._under_way.append((number, shared, [self._pool.submit(task) for task in tasks]))
        _, shared, futures = self._under_way.popleft()
        start = time.perf_counter()
        results = []
        for future in futures:
            signals.check()
            results.append(future.result())
        self.waited += time.perf_counter() - start
        return shared, results

    def close(self) -> None:
        """Drop what is under way; the next call starts anew."""
        for _, _, futures in self._under_way:
            for future in futures:
                future.cancel()
        self._under_way.clear()


class NotHere(InputError):
    """What was asked for needs more than this process may take; the one that asked does it itself."""


class Budget:
    """An amount of something that threads share; one that needs more than is free waits for the others."""

    def __init__(self, amount: int) -> None:
        self.free = self.all = amount
        self._changed = Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Hold an amount; a thread that holds some does not ask for more.

        Raises:
            NotHere: when it is more than there is.
        """
        if amount > self.all:
            raise NotHere(f"{amount:,} of {self.all:,}")
        with self._changed:
            self._changed.wait_for(lambda: self.free >= amount)
            self.free -= amount
        try:
            yield
        finally:
            with self._changed:
                self.free += amount
                self._changed.notify_all()
