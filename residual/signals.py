"""SIGINT, SIGTERM and SIGHUP: heard at once, granted where nothing is lost.

Outside ``Listener.deferred`` the first signal raises ``Interrupted`` in the main thread. Inside, it is
remembered, and what works there asks for it where it can stop.

The command listens from before its first large import to its end. A thread of its own says what was heard,
whatever the main thread is busy with; it ends the process when a second signal comes, and when the main
thread, with nothing to save, has not ended after ``GRACE`` seconds. In the process of a library's user only
the training loop listens, nothing ends the process, and a second signal is a KeyboardInterrupt.

A time limit is a signal too, SIGALRM, which is listened for where there is one.
"""

import os
import select
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from . import torchrun
from .errors import InputError, Interrupted

#: Windows has no SIGHUP.
HANGUP = getattr(signal, "SIGHUP", None)
WATCHED = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)
#: Ends the time of ``limited``; Windows has none.
ALARM = getattr(signal, "SIGALRM", None)
#: Seconds that the main thread has to end by itself where it has nothing to save.
GRACE = 1.5
#: torchrun passes on to its processes a signal that the terminal has sent them already: within so many
#: seconds two are one.
TOGETHER = 1.0


class Listener:
    """Hears signals from when it is made until ``close``; in other threads than the main one, none.

    Args:
        command: whether the process is the command's own, to be ended.

    Attributes:
        received: the first signal; None while there is none.
        sentence: what is said when a signal ends the work.
        together: as of ``deferred``.
    """

    def __init__(self, command: bool = False) -> None:
        self.received: int | None = None
        self.sentence = "stopped before the work was done"
        self._command = command
        self.together = False
        self._raises = True
        self._saves = False
        self._before: dict[int, object] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        if command:
            # Windows wants sockets for it.
            self._reading, self._writing = socket.socketpair()
            self._writing.setblocking(False)
            signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, name="signals", daemon=True).start()
        for number in WATCHED:
            # What was started with nohup outlives its terminal, and a program that Python is a part of hears
            # its signals itself: what it does then, Python cannot put back.
            now = signal.getsignal(number)
            if now is not None and (number != HANGUP or now != signal.SIG_IGN):
                self._before[number] = signal.signal(number, self._handle)

    def close(self) -> None:
        """Hear no more: signals do what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._command:
            signal.set_wakeup_fd(-1)
            self._writing.close()  # which ends the thread

    def limit(self, minutes: float) -> None:
        """Hear SIGALRM after so many minutes."""
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._handle)
        signal.setitimer(signal.ITIMER_REAL, 60 * minutes)

    def check(self) -> None:
        """Raise Interrupted where a signal was heard: called where the work can be left."""
        if self.received is not None:
            raise Interrupted(self.sentence, self.received)

    @contextmanager
    def deferred(self, together: bool = False) -> Iterator[None]:
        """Remember signals in this context, whose work saves what it has when it is left; then ask for them.

        Args:
            together: the work can only be left together with other ranks: ``check`` of this module, which is
                for those that work alone, does nothing.
        """
        self._raises, self._saves, self.together = False, True, together
        try:
            yield
        finally:
            self._raises, self._saves, self.together = True, False, False
        self.check()

    @contextmanager
    def granted(self) -> Iterator[None]:
        """Raise at once in this part of what is deferred, which changes nothing that is to be saved."""
        self._raises = True
        try:
            self.check()
            yield
        finally:
            self._raises = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Act in the main thread, between two of its instructions."""
        if self.received is not None:
            if not self._command and number != ALARM:
                raise KeyboardInterrupt
            return  # the other thread ends the process
        self.received = number
        if number == HANGUP:
            _leave_terminal()
        if not self._command:
            self._say_heard(number)
        if self._raises:
            if self._command and _importing(frame):
                # There is nothing to lose yet, and an extension's C++ aborts where an exception passes it.
                self._end(number)
            self.check()

    def _watch(self) -> None:
        """Act beside the main thread, which may be in a convolution of seconds."""
        number = self._next(None)
        heard = time.monotonic()
        if number is not None and not self._saves:
            second = self._next(GRACE)
            if not self._saves:
                self._end(second or number)
        if number is not None:
            self._say_heard(number)
            while (second := self._next(None)) is not None:
                # Neither the end of the time nor what torchrun passes on is somebody's second one.
                passed_on = torchrun.started() and time.monotonic() - heard <= TOGETHER
                if second != ALARM and not passed_on:
                    self._end(second)
        self._reading.close()

    def _next(self, seconds: float | None) -> int | None:
        """Return the next signal, None where none comes in so many seconds or ever."""
        while select.select([self._reading], [], [], seconds)[0] and (byte := self._reading.recv(1)):
            if byte[0] in self._before:
                return byte[0]
        return None

    def _say_heard(self, number: int) -> None:
        if self._saves and torchrun.rank() == 0:
            over = "the time of --minutes is over"
            heard = over if number == ALARM else f"{signal.Signals(number).name} received"
            _write(
                f"residual: {heard}: a checkpoint is written once the current images are done; a second "
                "signal ends the run at once, without one\n"
            )

    def _end(self, number: int) -> None:
        if number == HANGUP:
            _leave_terminal()
        _write(f"residual: {self.sentence}\n")
        os._exit(128 + number)


_current: Listener | None = None


@contextmanager
def listening(command: bool = False) -> Iterator[Listener]:
    """Give what hears signals: the one that does already, or a new one until the context's end."""
    global _current
    if _current is not None:
        yield _current
        return
    _current = Listener(command)
    try:
        yield _current
    finally:
        listener, _current = _current, None
        listener.close()


@contextmanager
def limited(minutes: float | None) -> Iterator[None]:
    """End the work in this context after so many minutes, as a signal would; None for no limit.

    Raises:
        InputError: where the system has no alarms.
    """
    if minutes is None:
        yield
        return
    if ALARM is None:
        raise InputError("--minutes: this system has no alarm signal; leave it out")
    with listening() as listener:
        listener.limit(minutes)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def saying(sentence: str) -> Iterator[None]:
    """Have the command say a sentence when a signal ends it in this context."""
    if _current is None:
        yield
        return
    before, _current.sentence = _current.sentence, sentence
    try:
        yield
    finally:
        _current.sentence = before


def check() -> None:
    """Raise Interrupted where a signal was heard: called where a rank that works alone can leave its work."""
    if _current is not None and not _current.together:
        _current.check()


def _importing(frame: FrameType | None) -> bool:
    """Whether the main thread is importing a module."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _leave_terminal() -> None:
    """Print to nowhere where the terminal that was printed to is gone: an error there would end the work."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        for output in (1, 2):
            with suppress(OSError):
                if stat.S_ISCHR(os.fstat(output).st_mode):
                    os.dup2(nowhere.fileno(), output)


def _write(text: str) -> None:
    with suppress(OSError):
        # A terminal shows ^C where the cursor is.
        os.write(2, (os.isatty(2) * "\n" + text).encode())
