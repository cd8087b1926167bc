"""What torchrun tells the processes that it starts.

Its variables count only where it has started this one: clusters and job scripts set RANK and its like for
purposes of their own. Nothing here needs PyTorch, which takes seconds to import.
"""

import os


def started() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Return this process's number among all that torchrun started."""
    return _told("RANK", 0)


def local_rank() -> int:
    """Return the number of this process on its machine: the GPU it is to use."""
    return _told("LOCAL_RANK", 0)


def size() -> int:
    """Return how many processes torchrun started."""
    return _told("WORLD_SIZE", 1)


def local_size() -> int:
    """Return how many of them are on this machine."""
    return _told("LOCAL_WORLD_SIZE", 1)


def restarts() -> int:
    """Return how often torchrun has started the processes anew (``--max-restarts``): one of them had died."""
    return _told("TORCHELASTIC_RESTART_COUNT", 0)


def _told(name: str, alone: int) -> int:
    return int(os.environ.get(name, alone)) if started() else alone
