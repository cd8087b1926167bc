"""The processes that train together: torchrun's environment, and sums over ranks.

There is no launcher of our own: ``torchrun --nproc-per-node=2 -m residual train ...`` starts the processes,
and a process that torchrun did not start is a world of one.
"""

import atexit
import gc
import hashlib
import importlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import InputError
from .torchrun import local_size, restarts, started

T = TypeVar("T")

#: One rank measures a training set of a million images while the others wait.
LONG = timedelta(hours=12)


@dataclass(frozen=True)
class World:
    """This process among those that share a run.

    Attributes:
        rank: this process's number, 0 to size - 1; rank 0 alone writes files and prints.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace ``tensor`` by its sum over all ranks, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether ``flag`` is set in any rank: all ranks get the same answer at the same place."""
        if self.size == 1:
            return flag
        return bool(self.sum_(torch.tensor(float(flag), device=device)))

    def gather(self, value: T) -> list[T]:
        """Return the values that all ranks gave, in the order of the ranks, in every rank."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def about_done(self, done: int, of: int) -> int:
        """Return how many of all ranks' items are about done when this one has done ``done`` of its own."""
        return min(done * self.size, of)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()


def join(device: torch.device) -> World:
    """Return the world that torchrun describes in the environment, joining its process group once.

    Args:
        device: this process's, with its number if it is a GPU.

    Raises:
        InputError: where GPUs cannot exchange anything.
    """
    if not started():
        return World()
    if not dist.is_initialized():
        gpu = device if device.type == "cuda" else None
        if gpu:
            # What exchanges objects asks for the current one.
            torch.cuda.set_device(gpu)
        store, rank, size = next(iter(dist.rendezvous("env://", timeout=LONG)))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":
            # After a restart torchrun's store still holds the addresses of the dead: not to be called again.
            # (Agents of several nodes may count restarts differently.)
            store = dist.PrefixStore(f"restart {restarts()}", store)
        # Functions of this module keep the group as a default value where it is first imported after joining,
        # which making a model that exchanges gradients does.
        importlib.import_module("torch.distributed.nn")
        options: dict[str, Any] = {
            "timeout": LONG,
            "store": store,
            "rank": rank,
            "world_size": size,
            "device_id": gpu,
        }
        try:
            dist.init_process_group("nccl" if gpu else "gloo", **options)
        except dist.DistBackendError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(
                f"the processes that torchrun has started cannot exchange anything ({reason}); each needs a "
                "GPU of its own: say --device cuda, and no number"
            ) from None
        # The group's threads end with the last reference to it, and must not live to see the interpreter
        # taken apart: now and then they then abort the process, after all work is done. A model that
        # exchanges gradients holds the group in a cycle of references.
        atexit.register(gc.collect)
    return World(dist.get_rank(), dist.get_world_size())


def joined() -> bool:
    """Whether this process is in a process group."""
    return dist.is_available() and dist.is_initialized()


@contextmanager
def left() -> Iterator[None]:
    """Leave the process group at the end, if one was joined.

    On GPUs only where the work is done: NCCL leaves when all ranks do, and where one has failed the others
    wait for it in the work. Such a process is to end, and torchrun then ends the others.
    """
    done = False
    try:
        yield
        done = True
    finally:
        if joined() and (done or dist.get_backend() != "nccl"):
            dist.destroy_process_group()


def launcher() -> str | None:
    """Return what tells the torchrun that started this process from any other; None where none did.

    It stays what it is when torchrun starts its processes anew. A job on several machines has several.
    """
    if not started():
        return None
    agent = parent = os.getppid()
    with suppress(OSError, IndexError, ValueError):  # anywhere but on Linux
        # A script between the two is another process each time.
        while parent > 1 and not _is_torchrun(parent):
            parent = int(_status(parent)[1])
        agent = parent if parent > 1 else agent
    began = ""
    with suppress(OSError, IndexError):
        began = _status(agent)[19]
    return hashlib.sha256(f"{socket.gethostname()} {agent} {began}".encode()).hexdigest()[:12]


def _is_torchrun(process: int) -> bool:
    """Whether a process is torchrun, also as ``python -m torch.distributed.run``."""
    words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    return any(
        os.path.basename(word) == b"torchrun" or word.startswith(b"torch.distributed.") for word in words
    )


def _status(process: int) -> list[str]:
    """Return what Linux tells of a process after its name: the second is its parent, the 20th its start."""
    told = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    return told.rpartition(")")[2].split()


#: How many threads the user asked for; None for the machine's choice.
_asked: int | None = None


def asked_threads() -> int | None:
    """Return the number of ``use_threads``, None where it was not called."""
    return _asked


def use_threads(count: int) -> None:
    """Compute on so many threads from here on, and decode on as many."""
    global _asked
    _asked = count
    torch.set_num_threads(count)


@contextmanager
def threads_kept() -> Iterator[None]:
    """Put back at the end of this context how many threads there were, and what was asked for."""
    global _asked
    count, asked = torch.get_num_threads(), _asked
    try:
        yield
    finally:
        torch.set_num_threads(count)
        _asked = asked


def cores(all_ranks: bool = False) -> int:
    """Return how many cores are for this process: its share, where torchrun starts several processes.

    Args:
        all_ranks: those of all of them together, for a rank that works while the others wait.
    """
    if _asked is not None:
        return _asked
    # Linux tells which cores a process may run on; macOS and Windows only how many there are.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return usable if all_ranks else max(1, usable // local_size())
