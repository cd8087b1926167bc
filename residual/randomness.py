"""Random numbers as a pure function of what they are for, so that nothing has to be remembered."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put back at the end of this context where PyTorch's own generators were: programs draw from them."""
    begun, seed = torch.cuda.is_initialized(), torch.initial_seed()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if begun else []):
        yield
    if not begun and torch.cuda.is_initialized():
        # As the program has seeded them, which nothing had drawn from.
        torch.cuda.manual_seed_all(seed)


class Stream(IntEnum):
    """Uses of random numbers; two uses never share a sequence but where it is said."""

    WEIGHTS = 0
    ORDER = 1
    CROPS = 2
    DROPOUT = 3
    SPLIT = 4
    REGIONS = 5
    CLASSES = 6


def mix(seed: int, stream: Stream, *index: int) -> int:
    """Return a seed of 63 bits that depends on all arguments and mixes them well.

    But not on noughts at the end: one number as the index gives what it gives with a second that is 0.
    """
    return int(np.random.SeedSequence((seed, stream, *index)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int, stream: Stream, *index: int) -> torch.Generator:
    """Return a CPU generator at the start of the sequence that the arguments name."""
    return torch.Generator().manual_seed(mix(seed, stream, *index))
