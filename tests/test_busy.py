"""Whether a machine is busy, and what the progress line says of it."""

import sys
import time

import pytest
import torch
from conftest import Refused

from residual import distributed
from residual.busy import BUSY, Busy, thread_seconds
from residual.training import display


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that Busy reads, to be moved by hand."""
    now = [100.0]
    monkeypatch.setattr("residual.busy.time.perf_counter", lambda: now[0])
    return now


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells")
def test_seconds_that_threads_have_run() -> None:
    before = thread_seconds()
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass
    after = thread_seconds()
    assert before is not None
    assert after is not None
    assert 0.04 < after[0] - before[0] < 5
    assert after[1] >= before[1]


def test_a_machine_is_busy_where_threads_stand_without_a_core(clock: list[float]) -> None:
    told = [(10.0, 1.0)]
    busy = Busy(lambda: told[0])
    told[0] = (14.0, 5.0)
    clock[0] += 1
    assert busy.part() is None, "not long enough to tell"
    clock[0] += 5
    assert busy.part() == 0.5
    clock[0] += 6
    told[0] = (20.0, 5.1)
    assert busy.part() is None
    assert BUSY < 0.5


def test_where_the_system_does_not_tell(clock: list[float]) -> None:
    busy = Busy(lambda: None)
    clock[0] += 10
    assert busy.part() is None


@pytest.mark.parametrize(("helps", "said"), [("--threads 1", " (--threads 1 helps)"), ("", "")])
def test_the_progress_line_says_so(
    helps: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Busy, "part", lambda self: 0.41)
    shown = display.Display("run", 10, lambda iteration: 4 * iteration, 0, silent=False)
    shown.show(3, 0.5, 20.0, helps=helps)
    line = capsys.readouterr().err
    assert f"machine busy: without a core for 41 % of the time{said}  " in line
    monkeypatch.setattr(Busy, "part", lambda self: None)
    shown.show(4, 0.5, 20.0, helps=helps)
    assert "busy" not in capsys.readouterr().err


def test_threads_that_are_asked_for(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(distributed, "_asked", None)
    distributed.use_threads(3)
    assert (torch.get_num_threads(), distributed.cores(), distributed.cores(all_ranks=True)) == (3, 3, 3)
    torch.set_num_threads(before)
    assert "--threads" in refused("train", "digits-resnet20", "--threads", "0")
