"""What a run shows while it works: one live line in a terminal, plain lines elsewhere."""

import sys
import time
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

#: Seconds between two updates of the live line, and between two plain lines.
LIVE_SECONDS, PLAIN_SECONDS = 0.5, 15.0


class Display:
    """The progress line of one run; silent in ranks other than the first.

    Args:
        name: of the run.
        iterations: its length.
        batch: pictures an iteration, over all ranks.
        done: iterations done in earlier sessions.
        silent: show nothing.
    """

    def __init__(self, name: str, iterations: int, batch: int, done: int, silent: bool) -> None:
        self.name = name
        self.iterations = iterations
        self.batch = batch
        self.silent = silent
        self.evaluated = ""
        self._live: Live | None = None
        self._started = (time.perf_counter(), done)
        #: Where speed was last measured: time and iteration.
        self._last = self._started
        self._period = LIVE_SECONDS

    def __enter__(self) -> "Display":
        console = Console(stderr=True)
        if console.is_terminal and not self.silent:
            self._live = Live(console=console, auto_refresh=False)
            self._live.start()
        else:
            self._period = PLAIN_SECONDS
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def due(self) -> bool:
        """Whether it is time for another line. Between two lines nothing is read from the device."""
        return time.perf_counter() - self._last[0] >= self._period

    def show(self, iteration: int, loss: float, error: float) -> None:
        """Show where the run is: training loss and error in percent since the last evaluation."""
        now = time.perf_counter()
        speed = (iteration - self._last[1]) * self.batch / max(now - self._last[0], 1e-9)
        pace = (now - self._started[0]) / max(iteration - self._started[1], 1)
        left = timedelta(seconds=round(pace * (self.iterations - iteration)))
        self._last = (now, iteration)
        if self.silent:
            return
        if self._live:
            self._live.update(self._line(iteration, loss, error, speed, left), refresh=True)
        else:
            print(
                f"{self.name}: iteration {iteration:,} of {self.iterations:,}  loss {loss:.3f}  errors: "
                f"training {error:.2f} %{self.evaluated}  {speed:,.0f} images/s  {left} left",
                file=sys.stderr,
                flush=True,
            )

    def _line(self, iteration: int, loss: float, error: float, speed: float, left: timedelta) -> Table:
        """One line in 80 columns; the run's name and a bar where there is room for them."""
        assert self._live is not None
        width = self._live.console.width
        grid = Table.grid(padding=(0, 1))
        # What is cut off where the terminal is narrower comes last.
        cells: list[RenderableType] = [
            f"{iteration:,}/{self.iterations:,}  {left} left  loss {loss:.3f}  "
            f"errors: training {error:.2f} %{self.evaluated}  {speed:,.0f} images/s"
        ]
        if width >= 110:
            cells.insert(0, self.name)
        if width >= 130:
            cells.insert(1, ProgressBar(self.iterations, iteration, width=16))
        for _ in cells:
            grid.add_column(no_wrap=True)
        grid.add_row(*cells)
        return grid

    def evaluation(self, part: str, error: float) -> None:
        """Remember the newest error in percent on ``part``, shown from now on."""
        self.evaluated = f", {part} {error:.2f} %"
