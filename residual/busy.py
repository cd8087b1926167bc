"""Whether other programs take this process's cores: Linux tells how long threads stood ready and had none."""

import time
from collections.abc import Callable
from pathlib import Path

#: Seconds over which it is measured.
WINDOW = 5.0
#: The part of the time that threads asked for a core and had none from which a machine is called busy. Those
#: of one's own that decode take a little from those that compute.
BUSY = 0.25


def thread_seconds() -> tuple[float, float] | None:
    """Return the seconds that this process's threads have run, and those that they stood without a core.

    None where the system does not tell: anywhere but on Linux.
    """
    ran = stood = 0
    try:
        for file in Path("/proc/self/task").glob("*/schedstat"):
            run, wait, _ = file.read_text(encoding="ascii").split()
            ran, stood = ran + int(run), stood + int(wait)
    except (OSError, ValueError):  # a thread has ended meanwhile, or another kernel writes something else
        return None
    return (ran / 1e9, stood / 1e9) if ran else None


class Busy:
    """How busy the machine is with others, from one call to the next.

    Args:
        seconds: as ``thread_seconds``.
    """

    def __init__(self, seconds: Callable[[], tuple[float, float] | None] | None = None) -> None:
        self._seconds = seconds or thread_seconds
        self._last = (time.perf_counter(), self._seconds())
        self._part: float | None = None

    def part(self) -> float | None:
        """Return the newest part of the time without a core if it makes the machine a busy one, else None."""
        now = time.perf_counter()
        if now - self._last[0] >= WINDOW:
            before, after = self._last[1], self._seconds()
            self._last = (now, after)
            self._part = None
            if before and after:
                ran, stood = (max(0.0, b - a) for a, b in zip(before, after, strict=True))
                self._part = stood / (ran + stood) if ran + stood else None
        return self._part if self._part is not None and self._part >= BUSY else None
