"""What a run shows while it works: one live line in a terminal, plain lines elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ..busy import Busy
from ..errors import plural
from ..terminal import console, live_line

#: Seconds between two updates of the live line, and between two plain lines.
LIVE_SECONDS, PLAIN_SECONDS = 0.5, 15.0
#: A part of the time spent waiting for images that is shown: below it the loop does not wait, it fetches.
WORTH_TELLING = 0.05
#: The newest seconds of a session from which the time left is told, or the newer half of a shorter one: a
#: slow start, and hours in which the machine had other work, are forgotten. Evaluations are counted by
#: themselves, and pauses are not.
PACE_SECONDS = 1800.0
#: A stretch between two lines has a pause, of a process that was stopped, say, where it takes longer than its
#: iterations did before by so many times that, and by so many seconds.
PAUSE, PAUSE_SECONDS = 10, 60.0
#: Width of the bar in characters.
BAR = 16


class Display:
    """The progress line of one run; silent in ranks other than the first.

    Args:
        name: of the run.
        iterations: its length.
        images: how many have been seen before an iteration, over all ranks.
        done: iterations done in earlier sessions.
        silent: show nothing.
        about: what the percentages are.
        epoch: iterations from one evaluation to the next, 0 for none.
        where: what it is trained on, said before the first iteration, which may take long; "" says nothing.
    """

    def __init__(
        self,
        name: str,
        iterations: int,
        images: Callable[[int], int],
        done: int,
        silent: bool,
        about: str = "errors",
        epoch: int = 0,
        where: str = "",
    ) -> None:
        self.name = name
        self.iterations = iterations
        self._done = done
        self.images = images
        self.silent = silent
        self.about = about
        self.where = where
        #: Seconds in this session of all evaluations and pauses, and of the newest evaluation.
        self._aside, self._evaluation = 0.0, 0.0
        #: Whether the newest stretch between two lines had a pause.
        self._paused = False
        #: How many of them are left.
        self._epoch, self._to_come = epoch, 0
        self._count(done)
        #: The newest percentage of the part that is evaluated, as text.
        self.evaluated: list[str] = []
        self._live: Live | None = None
        self._shown_in = ExitStack()
        self._started = time.perf_counter()
        #: Times and iterations of which the pace is that from the first to now.
        self._marks = deque([(self._started, done)])
        #: Where speed was last measured: time and iteration.
        self._last = (self._started, done)
        #: When a line was last shown.
        self._shown = self._started
        self._period = LIVE_SECONDS
        self._speed = 0.0
        self._busy = Busy()
        #: When waiting was last looked at, and how long it was by then.
        self._waited = (self._started, 0.0)
        self.console = console(stderr=True)

    def __enter__(self) -> "Display":
        if self.console.is_terminal and not self.silent:
            self._live = self._shown_in.enter_context(live_line(self.console))
        else:
            self._period = PLAIN_SECONDS
        if self.where and self._done < self.iterations:
            place = f"{self._done:,} of {self.iterations:,}"
            images = plural(self.images(self._done + 1) - self.images(self._done), "image")
            cells = (f"{images} an iteration", self.where)
            self._put(self._line(place, *cells), "  ".join((f"iteration {place}", *cells)))
        return self

    def __exit__(self, *_: object) -> None:
        self._shown_in.close()

    def due(self) -> bool:
        """Whether it is time for another line. Between two lines nothing is read from the device."""
        return time.perf_counter() - self._shown >= self._period

    def show(
        self, iteration: int, loss: float, error: float | None, waited: float = 0.0, helps: str = ""
    ) -> None:
        """Show where the run is: training loss and error in percent since the last evaluation.

        Args:
            error: None where training has only a loss.
            waited: seconds spent waiting for images since the run began; a part of the time worth telling
                is shown.
            helps: what helps on a machine that is busy with other programs, where something does.
        """
        now = self._shown = time.perf_counter()
        self.measure(iteration)
        left = self._left(now - self._aside, iteration)
        idle = (waited - self._waited[1]) / max(now - self._waited[0], 1e-9)
        self._waited = (now, waited)
        if self.silent:
            return
        place = f"{iteration:,} of {self.iterations:,}"
        errors = ", ".join(([] if error is None else [f"training {error:.2f} %"]) + self.evaluated)
        data = f"  waiting for data {100 * idle:.0f} %" if idle > WORTH_TELLING else ""
        if (part := self._busy.part()) is not None:
            data += f"  machine busy: without a core for {100 * part:.0f} % of the time"
            data += f" ({helps} helps)" if helps else ""
        speed = _pace(self._speed)
        plain = f"{self.about}: {errors}" if errors else ""
        cells = (f"iteration {place}", f"loss {loss:.3f}", plain, f"{speed}{data}", left)
        line = self._line(place, left, errors, data.strip(), f"loss {loss:.3f}", speed)
        self._put(line, "  ".join(filter(None, cells)))

    def _put(self, line: Table, plain: str) -> None:
        """Show where the run is, as the live line or as a plain one."""
        if self._live:
            self._live.update(line, refresh=True)
        elif not self.silent:
            print(f"{self.name}: {plain}", file=sys.stderr, flush=True)

    def say(self, what: str) -> None:
        """Say in a line of its own what the run is doing now that is no iteration."""
        if not self.silent:
            self.console.print(f"{self.name}: {what}", soft_wrap=True)

    @contextmanager
    def evaluating(self, iteration: int) -> Iterator[None]:
        """Evaluate in this context: that is no training, and does not count as slow iterations."""
        self.measure(iteration)
        began = time.perf_counter()
        try:
            yield
        finally:
            self._evaluation = time.perf_counter() - began
            self._aside += self._evaluation
            self._count(iteration)
            self.measure(iteration)

    def _count(self, iteration: int) -> None:
        """Count the evaluations that are left after the one of an iteration; the last one is at the end."""
        if self._epoch and iteration < self.iterations:
            self._to_come = -(-self.iterations // self._epoch) - iteration // self._epoch
        else:
            self._to_come = 0

    def measure(self, iteration: int) -> None:
        """Measure the speed since the last call, if there were iterations, and start anew from here."""
        now = time.perf_counter()
        if iteration > self._last[1]:
            seen = self.images(iteration) - self.images(self._last[1])
            self._speed = seen / max(now - self._last[0], 1e-9)
        self._last = (now, iteration)

    def _left(self, now: float, iteration: int) -> str:
        """Return the time left at the pace of the newest part of this session, as a line has it.

        Nothing after a session's first iteration: what is compiled is compiled in that one. Evaluations to
        come are taken to last as long as the newest one.

        Args:
            now: seconds, without those of evaluations and of earlier pauses.
        """
        if iteration - self._done <= 1:
            self._started = now
            self._marks[0] = (now, iteration)
            return ""
        now -= self._pause(now, iteration)
        since = now - min(PACE_SECONDS, (now - self._started) / 2)
        while len(self._marks) > 1 and self._marks[1][0] <= since:
            self._marks.popleft()
        began, first = self._marks[0]
        self._marks.append((now, iteration))
        pace = (now - began) / max(iteration - first, 1)
        left = pace * (self.iterations - iteration) + self._evaluation * self._to_come
        return f"{timedelta(seconds=round(left))} left"

    def _pause(self, now: float, iteration: int) -> float:
        """Return the seconds of a pause since the last line, and leave them out from now on.

        Two in a row are none: iterations take longer now.
        """
        (began, first), (newest, last) = self._marks[0], self._marks[-1]
        if last == first:
            return 0.0
        usual = (newest - began) / (last - first) * (iteration - last)
        more = now - newest - usual
        self._paused = not self._paused and more > max(PAUSE_SECONDS, PAUSE * usual)
        if not self._paused:
            return 0.0
        self._aside += more
        return more

    def _line(self, place: str, *rest: str) -> Table:
        """One line: the name, the place, and of the rest what fits, the most telling first."""
        width = self.console.width - len(self.name)
        cells: list[RenderableType] = [self.name]
        for cell in (place, *rest):
            if not cell:
                continue
            if len(cell) + 2 > width:
                break
            cells.append(cell)
            width -= len(cell) + 2
        if width > BAR + 2:
            done, _, total = place.replace(",", "").partition(" of ")
            cells.insert(1, ProgressBar(int(total), int(done), width=BAR))
        grid = Table.grid(padding=(0, 2, 0, 0))
        for _ in cells:
            grid.add_column(no_wrap=True)
        grid.add_row(*cells)
        return grid

    def evaluation(self, part: str, error: float) -> None:
        """Remember the newest percentage on ``part``, shown from now on."""
        self.evaluated = [f"{part} {error:.2f} %"]


def _pace(speed: float) -> str:
    """Return images a second as a line has them; seconds an image where there is less than one a second."""
    one = "images/s"
    if 0 < speed < 1:
        speed, one = 1 / speed, "s an image"
    return f"{speed:,.{1 if speed < 10 else 0}f} {one}"
