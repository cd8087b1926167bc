"""Processes that read images for this one's threads, where there are more cores than Python's lock lets work.

Opening an image and asking it for its size are Python's work, 0.3 ms of the 0.4 that one of 64 x 64 pixels
takes: however many threads there are, they read 2,500 of those a second. A helper is a process of its own. A
thread hands it files' names and waits without the lock.
"""

import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, ParamSpec, TypeVar, cast

from ..distributed import cores
from ..terminal import note

P = ParamSpec("P")
T = TypeVar("T")

#: From so many cores on there are helpers: fewer threads seldom wait for the lock.
LEAST_CORES = 4
#: Helpers at most, each of which takes 0.3 GB: no GPU needs more images than so many read.
MOST = 16
#: Images of one call, and bytes of their pixels, at most. To hand over a call takes the lock, and who needs
#: that meanwhile (the thread that trains, for each kernel that it launches) waits.
AT_ONCE = 32
PIECE = 2 << 20
#: Calls that this process does itself before helpers are started, each of which takes seconds to begin.
BEFORE = 64
#: Bytes that a pipe holds, where it can be asked to: an image goes through it in a piece or two.
PIPE = 1 << 20

#: What a helper runs. The way to this package is the first that it is told.
_PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from residual.data.helpers import help_on; help_on()"
)


class _Helper:
    """A process, and the two pipes to it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What goes wrong in it shows here as a pipe that ends.
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        self.requests = cast(IO[bytes], self.process.stdin)
        self.replies = cast(IO[bytes], self.process.stdout)
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import fcntl

            fcntl.fcntl(self.replies, fcntl.F_SETPIPE_SZ, PIPE)

    def begin(self, share: int) -> None:
        """Wait until it works; it gets one part in ``share`` of the memory for decoding."""
        # This very package comes first; what is relative means this process's folder as it is now.
        self._send([str(Path(__file__).parents[2]), *map(os.path.abspath, map(str, sys.path))])
        self._send(share)
        self._receive()

    def ask(
        self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bool, T]:
        """Return whether it could be done, and the result."""
        # Relative paths are from here; a folder that has been removed has none.
        folder = ""
        with contextlib.suppress(OSError):
            folder = os.getcwd()
        # Bytes: what cannot be unpickled there spoils no other request.
        self._send(pickle.dumps((folder, function, args, kwargs), pickle.HIGHEST_PROTOCOL))
        return cast(tuple[bool, T], self._receive())

    def _send(self, what: object) -> None:
        pickle.dump(what, self.requests, pickle.HIGHEST_PROTOCOL)
        self.requests.flush()

    def _receive(self) -> object:
        return pickle.load(self.replies)

    def end(self) -> None:
        """End it at once, whatever it does."""
        # First of all: a thread that waits for its reply holds the pipe.
        self.process.kill()
        self.process.wait()
        for pipe in (self.requests, self.replies):
            with contextlib.suppress(OSError):
                pipe.close()

    def leave(self) -> None:
        """In a process that was forked from its parent's: hold its pipes no longer, so that it can end."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for pipe in (self.requests, self.replies):
            os.dup2(nowhere, pipe.fileno())
        os.close(nowhere)
        self.process.returncode = 0


class Helpers:
    """The helpers of a process: started when there is enough to do, and there until it ends.

    Args:
        number: of helpers; 0 for none.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        #: Those that can be asked, and those of them that nobody asks now.
        self.alive = 0
        self.free: SimpleQueue[_Helper] = SimpleQueue()
        self.all: list[_Helper] = []
        self._lock = threading.Lock()
        self._calls = 0
        self._beginning = number
        self._ended = False

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``function(*args)``, done by a helper as soon as there are any.

        Args:
            function: of a module; it, its arguments and its result can be pickled, and to do it twice does
                no harm.
        """
        if self._calls < BEFORE:
            self._count()
        helper = self._next()
        if helper is None:
            return function(*args, **kwargs)
        try:
            done, result = helper.ask(function, args, kwargs)
        except BaseException as error:
            # Its reply, if there is one, would be taken for the next one's.
            with self._lock:
                self.alive -= 1
                left, ended = self.alive, self._ended
            helper.end()
            if not isinstance(error, Exception):
                raise
            # It has been ended, where the machine's memory ran out, say. What it was to do is done here.
            result = function(*args, **kwargs)
            if not ended:
                _tell(f"a process that reads images has ended, perhaps for want of memory; {_slower(left)}")
            return result
        self.free.put(helper)
        # Errors are this process's own, which has more memory, and raised where they can be caught.
        return result if done else function(*args, **kwargs)

    def _count(self) -> None:
        with self._lock:
            self._calls += 1
            due = self._calls == BEFORE
        for _ in range(self.number if due else 0):
            try:
                threading.Thread(target=self._begin, name="helper", daemon=True).start()
            except RuntimeError:  # a system that starts no more threads
                self._begun()

    def _begin(self) -> None:
        """Start one and wait for it, in a thread of its own: until all can be asked, this process works."""
        # With a system that starts no more processes, and helpers that do not begin, there are fewer of them.
        with contextlib.suppress(OSError):
            helper = _Helper()
            with self._lock:
                self.all.append(helper)
            try:
                helper.begin(self.number)
            except Exception:
                helper.end()
            else:
                self.free.put(helper)
        self._begun()

    def _begun(self) -> None:
        with self._lock:
            self._beginning -= 1
            if self._beginning or self._ended:
                return
            alive = self.alive = self.free.qsize()
        if missing := self.number - alive:
            _tell(f"{missing} of {self.number} processes that read images did not start; {_slower(alive)}")

    def _next(self) -> _Helper | None:
        """Return a helper, or None for what this process does itself."""
        while self.alive > 0:
            # Where there are as many as ever, a thread without one waits. Else each has one, and who has none
            # works: a rank that uses all cores while the others wait, say. The last one may end meanwhile.
            with contextlib.suppress(Empty):
                return self.free.get(timeout=1) if self.number == MOST else self.free.get_nowait()
            if self.number < MOST:
                break
        return None

    def end(self) -> None:
        """End all of them."""
        with self._lock:
            self._ended, self.alive = True, 0
            helpers = list(self.all)
        for helper in helpers:
            helper.end()


def _slower(left: int) -> str:
    return f"{left} of them read on, more slowly" if left else "this process reads alone, more slowly"


def _tell(sentence: str) -> None:
    # Nobody may listen any more; that is no reason not to read.
    with contextlib.suppress(OSError):
        note(sentence)


_helpers: Helpers | None = None
_making = threading.Lock()


def aside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return ``function(*args)``, from another process where that is faster; see ``Helpers.__call__``."""
    global _helpers
    if _helpers is None:
        with _making:
            _helpers = _helpers or Helpers(_number())
    return _helpers(function, *args, **kwargs) if _helpers.number else function(*args, **kwargs)


def begin(number: int) -> None:
    """Have so many helpers from now on, 0 for none, whatever the cores: for measurements."""
    global _helpers
    _end()
    _helpers = Helpers(number)


def ready() -> bool:
    """Whether helpers can be asked."""
    return bool(_helpers and _helpers.alive)


def few(images: int, pixels: int, threads: int = 1) -> list[range]:
    """Return the places of some images, those of one call together.

    Args:
        pixels: that come back of each image.
        threads: so many have some of them.
    """
    most = max(1, min(AT_ONCE, PIECE // (3 * pixels), images // threads))
    return [range(start, min(start + most, images)) for start in range(0, images, most)]


def _number() -> int:
    # A program that has Python packed into it would start itself, and many processes of one program so many
    # times as many.
    alone = multiprocessing.parent_process() is None and not getattr(sys, "frozen", False)
    return min(cores(), MOST) if alone and sys.executable and cores() >= LEAST_CORES else 0


@atexit.register
def _end() -> None:
    """They would see by themselves that nobody asks any more, a moment later."""
    if _helpers:
        _helpers.end()


#: Of this process's parent, where that was forked: kept, since to forget them would be to wait for them.
_parents: list[_Helper] = []


def _forget() -> None:
    """In a process that was forked: they are its parent's."""
    global _helpers, _making
    if _helpers:
        _parents.extend(_helpers.all)
        for helper in _helpers.all:
            with contextlib.suppress(OSError, ValueError):
                helper.leave()
    _helpers, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def help_on() -> None:
    """Do what is asked for until nobody asks any more: what a helper runs."""
    # A Ctrl-C is heard by all processes of a terminal; who decides what it means closes the pipe.
    for heard in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, heard):
            signal.signal(getattr(signal, heard), signal.SIG_IGN)
    # Where Linux runs out of memory it ends a helper, which costs little, and not the process that has most.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever a library prints is no reply.
    os.dup2(2, 1)
    import torch

    from . import images

    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        images.share_memory(pickle.load(requests))
        _reply(replies, None)
        here = ""
        while True:
            request = pickle.load(requests)
            try:
                folder, function, args, kwargs = pickle.loads(request)
                if folder != here:
                    os.chdir(folder)
                    here = folder
                found = True, function(*args, **kwargs)
            except Exception:
                found = False, None
            _reply(replies, found)


def _reply(replies: IO[bytes], what: object) -> None:
    pickle.dump(what, replies, pickle.HIGHEST_PROTOCOL)
    replies.flush()
