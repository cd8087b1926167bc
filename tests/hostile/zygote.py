"""A process that has loaded everything, and tries each case in a child of its own: a fork takes milliseconds.

As ``python zygote.py`` it answers cases, JSON a line, with what became of them; ``Zygote`` starts it.
"""

import atexit
import contextlib
import errno
import importlib
import json
import os
import pkgutil
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: Seconds after which work that goes on is asked to end, and after which what does not end hangs.
PATIENCE, HANG = 4.0, 20.0
#: Bytes of memory that nobody's input may take: ours, and what ends a case before it harms the machine.
MOST, LIMIT = 2 << 30, 6 << 30
#: Seconds between two looks; a jump of the clock (the machine was paused) counts as no more.
TICK = 0.005
#: What Python tells of files that are changed; renaming and replacing are one.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree")
#: Loaded by the commands that need them, which would each do so again.
LAZY = ("matplotlib.pyplot", "sklearn.datasets", "sklearn.metrics", "scipy.io", "pycocotools.cocoeval",
        "onnx",
        "onnxruntime", "huggingface_hub", "PIL.ImageDraw")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A command line, and what happens to it.

    Attributes:
        words: without the program's name.
        folder: where it is typed.
        environment: more of it.
        kill_at: the process dies before its so-many-th change of a file below ``watched``.
        kill_after: or after so many seconds.
        full_at: the disk is full from that change on.
        patience: seconds after which it is asked to end.
    """

    words: list[str]
    folder: str
    environment: dict[str, str] = field(default_factory=dict)
    watched: str | None = None
    kill_at: int | None = None
    kill_after: float | None = None
    full_at: int | None = None
    patience: float = PATIENCE


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        code: the exit status, as a shell has it: 128 and the signal's number for what was killed.
        output: what it printed.
        seconds: that it took.
        memory: bytes at most, those of the loaded libraries among them.
        asked: whether it was asked to end; hung: whether it then did not.
        changes: how often it changed a file below ``watched``.
    """

    code: int
    output: str
    seconds: float
    memory: int
    asked: bool
    hung: bool
    changes: int


class Zygote:
    """The process, from the other side."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def attempt(self, case: Case) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def load() -> None:
    """Import whatever a command may import, and cut the network off."""
    import residual

    for module in pkgutil.walk_packages(residual.__path__, "residual."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LAZY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)

    def unreachable(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    socket.create_connection = unreachable
    socket.getaddrinfo = unreachable


def answer() -> None:
    for line in sys.stdin:
        print(json.dumps(asdict(tried(Case(**json.loads(line))))), flush=True)


def tried(case: Case) -> Outcome:
    """Return what becomes of a case in a child of this process."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as counted:
        child = os.fork()
        if not child:
            begin(case, output.fileno(), counted.fileno())
        passed, last, asked, hung = 0.0, time.monotonic(), False, False
        while not (ended := os.wait4(child, os.WNOHANG))[0]:
            time.sleep(TICK)
            now = time.monotonic()
            passed, last = passed + min(now - last, 10 * TICK), now
            if case.kill_after is not None and passed > case.kill_after:
                os.kill(child, signal.SIGKILL)
            if not asked and passed > case.patience:
                asked = True
                os.kill(child, signal.SIGTERM)
            if not hung and passed > case.patience + HANG:
                hung = True
                os.kill(child, signal.SIGKILL)
        _, status, usage = ended
        code = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read().decode(errors="backslashreplace")
        changes = os.fstat(counted.fileno()).st_size
        memory = usage.ru_maxrss * 1024
        return Outcome(code if code >= 0 else 128 - code, printed, passed, memory, asked, hung, changes)


def begin(case: Case, output: int, counted: int) -> None:
    """Become the command: this does not return."""
    # Standard output is for the answers.
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    os.chdir(case.folder)
    os.environ.update(case.environment)
    if case.watched:
        watch(os.path.realpath(case.watched), case.kill_at, case.full_at, counted)
    sys.argv = ["residual", *case.words]
    from residual.__main__ import main  # not by whoever starts the process

    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    # The end of the interpreter, but for what C++ takes apart: threads of it that a child does not have.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def watch(folder: str, kill_at: int | None, full_at: int | None, counted: int) -> None:
    """Count the changes of files below a folder; die before one, or have the disk full from there on."""
    number = 0

    def changed(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal number
        writes = event in CHANGES or (
            event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if not writes or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if not path.startswith(folder) or path.endswith(".lock"):
            return
        number += 1
        os.write(counted, b".")
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if full_at is not None and number >= full_at and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    sys.addaudithook(changed)


@contextlib.contextmanager
def copied(ground: Path) -> Iterator[Path]:
    """Give a copy of a folder, to be spoilt."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(shutil.copytree(ground, Path(place) / "place", symlinks=True, copy_function=_copy))


def _copy(source: str, to: str) -> None:
    if stat.S_ISFIFO(os.lstat(source).st_mode):
        os.mkfifo(to)
    elif source.endswith((".safetensors", ".png")):
        os.link(source, to)  # they are replaced by whole files, and never changed
    else:
        shutil.copy(source, to)


if __name__ == "__main__":
    load()
    answer()
