"""What a piece of work takes of memory, whatever the process took before."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Taken:
    """Bytes at most, above what the process held before; known when the work has ended."""

    bytes = 0


@contextmanager
def memory_taken() -> Iterator[Taken]:
    """Measure what is done meanwhile; a test that asks is skipped where the system does not tell.

    The peak that getrusage tells is that of the whole life of a process: after a greedy test it hides what
    all later ones take, or is held against them.
    """
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        pytest.skip("this system does not tell a process's peak of memory")
    clear.write_text("5", encoding="ascii")  # the peak begins anew
    before, taken = _bytes("VmRSS"), Taken()
    yield taken
    taken.bytes = _bytes("VmHWM") - before


def _bytes(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found, name
    return int(found[1]) * 1024
