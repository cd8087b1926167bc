"""Names of files and classes are shown letter for letter, in a terminal and in figures."""

import contextlib
import io
import re
import sys
from html import unescape
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from residual import terminal
from residual.analysis.detection_figures import PrecisionCurve, precision_recall
from residual.analysis.figures import file_content
from residual.analysis.layer_figures import Named, responses_figure
from residual.analysis.layers import Response
from residual.run.run import _tell
from residual.table import Table, TableRow
from residual.terminal import progress, say
from residual.training.display import Display

#: Markup of Rich, an emoji's name, what Matplotlib hides, and what it takes for mathematics.
NAMES = ("[ship]", "[/x]", ":cat:", "_hidden", "a$b$c", "[bold]runs/[/]", "100 %")


def test_a_table_shows_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [TableRow((name, "1"), note=f"note {name}") for name in NAMES]
    Table("title [/x]", ("heading [/x]", ":cat:"), rows, caption="[/y]").print()
    shown = capsys.readouterr().out
    for text in (*NAMES, "title [/x]", "heading [/x]", "[/y]", *(f"note {name}: {name}" for name in NAMES)):
        assert text in shown, text


def test_lines_and_progress_show_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say(*NAMES)
    say(*NAMES, stderr=True)
    display = Display("runs/[/x]", 10, lambda iteration: iteration, 0, silent=False)
    display.say("[ship] :cat:")
    printed = capsys.readouterr()
    assert printed.out.splitlines() == list(NAMES)
    assert printed.err.splitlines() == [*NAMES, "runs/[/x]: [ship] :cat:"]
    with display.console.capture() as capture:
        display.console.print(display._line("1 of 10", "loss 0.500"))
    assert capture.get().startswith("runs/[/x]")
    bar = progress()
    for name in NAMES:
        bar.add_task(name, total=2)
    with bar.console.capture() as capture:
        bar.console.print(bar.get_renderable())
    assert [re.split(r"  +", line)[0] for line in capture.get().splitlines()] == list(NAMES)


def test_what_is_said_to_nobody_goes_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    say("a note", stderr=True)
    assert capsys.readouterr().out == ""


def test_notes_show_names_that_are_no_utf8(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of a run's damaged images as elsewhere, and in its list of them."""
    listing = tmp_path / "unreadable.txt"
    _tell(["caf\udce9.png: it is empty"], "image{s} could not be read and {were} skipped", listing)
    said = "note: 1 image could not be read and was skipped, listed in"
    assert capsys.readouterr().err == f"{said} {listing}; the first: caf\\xe9.png: it is empty\n"
    assert listing.read_text() == "caf\\xe9.png: it is empty\n"


def test_long_work_is_told_of_in_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.counted("regions") as show:
        show(2000, 1)
    assert capsys.readouterr().err == ""  # not even an empty line
    monkeypatch.setattr(terminal, "PLAIN_SECONDS", 0.0)
    with terminal.counted("regions") as show:
        show(2000, 2000)
    with terminal.counted("regions", silent=True) as show:
        show(2000, 2000)
    assert capsys.readouterr().err == "regions: 2,000 of 2,000, 0:00:00 left\n"


def test_the_line_of_a_run_gives_way_to_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(
        terminal,
        "console",
        lambda **_: Console(file=shown, force_terminal=True, width=100, highlight=False),
    )
    with terminal.live_line(terminal.console()) as line:
        line.update("run: iteration 1", refresh=True)
        with terminal.counted("images") as show:
            show(3, 1)
            assert line.is_started  # nothing has taken long yet
            monkeypatch.setattr(terminal, "BAR_SECONDS", 0.0)
            show(3, 2)
            assert not line.is_started
            # It was taken away, and stands nowhere above the bar: up a line, and all of it erased.
            assert "\r\x1b[1A\x1b[2K" in shown.getvalue().rpartition("iteration 1")[2]
            show(3, 3)
        assert line.is_started
        assert "images" in shown.getvalue()
        assert shown.getvalue().endswith("run: iteration 1")
        with terminal.counted("images") as show, contextlib.suppress(ZeroDivisionError):
            show(3, 1)
            raise ZeroDivisionError
        assert line.is_started
    with terminal.counted("images") as show:
        show(3, 3)
    assert shown.getvalue().endswith("\x1b[2K")


def test_a_run_has_its_line_before_its_first_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    there = Console(file=shown, force_terminal=True, width=100, highlight=False)
    monkeypatch.setattr("residual.training.display.console", lambda **_: there)
    with Display("run", 10, lambda iteration: 4 * iteration, 2, silent=False, where="cpu, 2 threads"):
        assert "2 of 10  4 images an iteration  cpu, 2 threads" in shown.getvalue()


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.01, "400 images/s"), (4, "1.0 images/s"), (64, "16 s an image")]
)
@pytest.mark.parametrize("live", [True, False])
def test_a_slow_run_tells_its_speed_in_seconds_an_image(
    seconds: float,
    told: str,
    live: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    monkeypatch.setattr("residual.training.display.time.perf_counter", lambda: now[0])
    shown = io.StringIO()
    there = Console(file=shown, force_terminal=live, width=100, highlight=False)
    monkeypatch.setattr("residual.training.display.console", lambda **_: there)
    with Display("run", 10, lambda iteration: 4 * iteration, 0, silent=False) as display:
        now[0] += seconds
        display.show(1, 0.5, 20.0)
    assert f"  {told}" in (shown.getvalue() if live else capsys.readouterr().err)


def test_a_signal_while_a_bar_begins_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(terminal, "console", lambda **_: Console(file=shown, force_terminal=True))
    monkeypatch.setattr(terminal, "BAR_SECONDS", 0.0)
    begin = terminal.Progress.start

    def interrupted(bar: terminal.Progress) -> None:
        begin(bar)
        raise KeyboardInterrupt

    monkeypatch.setattr(terminal.Progress, "start", interrupted)
    before = sys.stderr
    with pytest.raises(KeyboardInterrupt), terminal.counted("images") as show:
        show(3, 1)
    assert sys.stderr is before
    assert shown.getvalue().rindex("\x1b[?25h") > shown.getvalue().rindex("\x1b[?25l")


def test_the_time_left_forgets_a_slow_start_and_leaves_out_hours_of_standing_still(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("residual.training.display.time.perf_counter", lambda: now[0])
    display = Display("run", 100_000, lambda iteration: iteration, 500, silent=False)

    def left(iteration: int, seconds: float) -> str:
        """Go on for ``seconds``, to ``iteration``."""
        now[0] += seconds
        display.show(iteration, 0.5, None)
        return capsys.readouterr().err.rpartition("  ")[2].strip()

    assert "left" not in left(501, 100)  # a first iteration that compiles
    assert left(502, 1) == "1 day, 3:38:18 left"
    for iteration in range(503, 604):
        last = left(iteration, 1)  # 1 iteration a second from here
    assert last == "1 day, 3:36:37 left"
    # A process that was stopped for hours goes on as before.
    assert left(604, 36_000) == "1 day, 3:36:36 left"
    assert left(605, 1) == "1 day, 3:36:35 left"
    # One that has become slow does not.
    for iteration in range(606, 640):
        last = left(iteration, 90)
    assert last == "103 days, 12:01:30 left"


def test_evaluations_are_told_by_themselves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("residual.training.display.time.perf_counter", lambda: now[0])
    display = Display("run", 9_500, lambda iteration: iteration, 0, silent=False, epoch=1_000)
    left = ""
    for iteration in range(1, 2_002):
        now[0] += 1
        display.show(iteration, 0.5, None)
        left = capsys.readouterr().err.rpartition("  ")[2].strip()
        if iteration % 1_000 == 0:
            with display.evaluating(iteration):
                now[0] += 4_000
    # 7,499 iterations of a second, and eight evaluations of 4,000: the last one is after all iterations.
    assert left == "10:58:19 left"
    for iteration in range(2_002, 9_501):
        display.show(iteration, 0.5, None)
        if iteration % 1_000 == 0 or iteration == 9_500:
            with display.evaluating(iteration):
                now[0] += 4_000
    capsys.readouterr()
    # One that was interrupted is done first by the session that goes on.
    again = Display("run", 9_500, lambda iteration: iteration, 1_000, silent=False, epoch=1_000)
    with again.evaluating(1_000):
        now[0] += 4_000
    assert again._to_come == 9
    display.show(9_500, 0.5, None)
    assert capsys.readouterr().err.rstrip().endswith("  0:00:00 left")


@pytest.mark.parametrize("kind", ["precision", "responses"])
def test_a_legend_shows_names_as_they_are(kind: str) -> None:
    if kind == "precision":
        curves = [PrecisionCurve(name, [0.5, 1.0], [1.0, 0.5]) for name in NAMES]
        figure: Figure = precision_recall(curves, "title $x$")
    else:
        measured = [Response("layer1.0.conv1", 1.0), Response("layer1.0.conv2", 2.0)]
        figure = responses_figure([(Named(name, 20, False), measured) for name in NAMES])
    drawn = re.findall(r"<text [^>]*>([^<]*)</text>", file_content(figure, "svg").decode())
    assert set(NAMES) <= {unescape(text) for text in drawn}
    assert kind != "precision" or "title $x$" in drawn
