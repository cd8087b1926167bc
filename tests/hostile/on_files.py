"""Damaged files meet every reader there is: a sentence, or what is still in them; never anything else.

Readers are found in the package (ground.readers), files are what the command leaves behind today: a new
one of either is attacked without anyone writing a case.
"""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, GeneratorType

from attacks import Figures, always_the_same
from ground import Reader, damages, files_of
from hypothesis import given
from hypothesis import strategies as st
from memory import memory_taken
from zygote import HANG, MOST

from residual import InputError

#: What stands in place of a file, and is none.
NO_FILES: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "dangling link": lambda path: path.symlink_to("no/such/file"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "5 GB of nothing": lambda path: (path.touch(), os.truncate(path, 5 << 30)),
}


class Hung(BaseException):
    """A reader took longer than ``HANG`` seconds."""


@contextmanager
def in_time() -> Iterator[None]:
    ticks = 0

    def tick(number: int, frame: FrameType | None) -> None:
        nonlocal ticks
        ticks += 1
        if ticks >= HANG:
            raise Hung

    before = signal.signal(signal.SIGALRM, tick)
    # Second by second: while the machine does other things, they do not add up.
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(read: Reader, path: Path) -> str:
    """Return what a reader makes of a path: "read", "refused", or what must not be."""
    try:
        with in_time():
            result = read(path)
            if isinstance(result, GeneratorType):
                list(result)
        return "read"
    except InputError as error:
        said = str(error)
        return "refused" if said and "\n" not in said and len(said) < 2000 else f"no sentence: {said[:200]!r}"
    except Hung:
        return "hang"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"traceback: {type(error).__name__}: {error}"


def paths_about(ground: Path, file: Path) -> list[Path]:
    """Return a file and the folders that it is in."""
    return [file, *(folder for folder in file.parents if ground in folder.parents)]


def attack(ground: Path, name: str, all_readers: list[tuple[str, Reader]], figures: Figures) -> None:
    """Have every reader read a file, and each folder that it is in."""
    figures.tried("damaged files")
    with memory_taken() as taken:
        for path in paths_about(ground, ground / name):
            for reader, read in all_readers:
                found = outcome(read, path)
                if found not in ("read", "refused"):
                    figures.fault(found.partition(":")[0], f"{reader} of {path.relative_to(ground)}: {found}")
                figures.note(found if found in ("read", "refused") else "fault")
    if taken.bytes > MOST:
        figures.fault("above 2 GB", name)


@contextmanager
def spoilt(path: Path) -> Iterator[bytes]:
    """Give a file's content, and put it back."""
    content = path.read_bytes()
    try:
        yield content
    finally:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(content)


def damaged_files(
    ground: Path, all_readers: list[tuple[str, Reader]], examples: int, figures: Figures
) -> None:
    names = files_of(ground)
    which = Counter[str]()

    @always_the_same(examples)
    @given(name=st.sampled_from(names), damage=damages())
    def one(name: str, damage: Callable[[bytes], bytes]) -> None:
        path = ground / name
        with spoilt(path) as content:
            path.write_bytes(damage(content))
            attack(ground, name, all_readers, figures)
        which[path.suffix] += 1

    one()
    assert sum(which.values()) >= examples * 0.9, which


def no_files(ground: Path, names: list[str], all_readers: list[tuple[str, Reader]], figures: Figures) -> None:
    for name in names:
        for put in NO_FILES.values():
            path = ground / name
            with spoilt(path):
                path.unlink()
                put(path)
                attack(ground, name, all_readers, figures)
