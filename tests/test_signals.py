"""Signals: heard at once, granted where nothing is lost, and always the end of the command."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import command_line, environment, save_network

from residual.errors import Interrupted
from residual.signals import WATCHED, Listener, check, limited, listening, saying

#: What a busy machine may add to the seconds that are promised.
SLACK = 4


def run_script(body: str) -> "subprocess.Popen[str]":
    """Start a process of the command's kind, and wait until it says that it is ready."""
    script = "import hashlib, time, residual.signals\nfrom residual.signals import listening\n"
    # What swallows the signal is not to be waited for longer than the test needs.
    script += "residual.signals.GRACE = 0.2\n"
    script += "with listening(command=True) as listener:\n" + "".join(
        f"    {line}\n" for line in body.splitlines()
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process: "subprocess.Popen[str]", within: float) -> tuple[int, str]:
    """Return a process's exit code and what it said, and fail where it takes longer to end."""
    start = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - start < within + SLACK
    return process.returncode, errors


def listens(process: "subprocess.Popen[str]") -> bool:
    """Whether a process catches SIGHUP, which Python itself does not."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught & 1 << (signal.SIGHUP - 1))


#: An exception that is raised while Python calls a destructor, say, gets lost.
SWALLOWS = """\
while True:
    try:
        print("ready", flush=True)
        time.sleep(60)
    except BaseException:
        pass
"""


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGINT, 0.0), (signal.SIGINT, 0.4), (signal.SIGTERM, 0.8)]
)
def test_a_signal_in_the_first_second_ends_the_command_with_a_sentence(
    number: signal.Signals, seconds: float, tmp_path: Path
) -> None:
    weights = save_network(tmp_path / "w")
    process = subprocess.Popen(
        command_line("train", "digits-resnet20", "--weights", weights, "--out", tmp_path / "run"),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    while not listens(process):
        assert process.poll() is None, (
            "it ended before it listened; does the shell ignore SIGHUP, as nohup does?"
        )
        time.sleep(0.001)
    time.sleep(seconds)
    process.send_signal(number)
    code, errors = ended(process, within=2)
    assert code == 128 + number
    assert errors == "residual: stopped before the work was done\n"


def test_a_signal_ends_what_swallows_it() -> None:
    process = run_script(SWALLOWS)
    process.send_signal(signal.SIGINT)
    assert ended(process, within=2) == (130, "residual: stopped before the work was done\n")


#: A minute of work that Python cannot interrupt, but for other threads.
BUSY = "with listener.deferred():\n    print('ready', flush=True)\n"
BUSY += "    hashlib.pbkdf2_hmac('sha256', b'a', b'b', 100_000_000)"


def test_what_is_heard_is_said_at_once_and_a_second_signal_ends_the_run() -> None:
    process = run_script(BUSY)
    assert process.stderr is not None
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    assert process.stderr.readline().startswith("residual: SIGTERM received: a checkpoint is written once")
    assert time.monotonic() - start < 1 + SLACK
    process.send_signal(signal.SIGINT)
    assert ended(process, within=1) == (130, "residual: stopped before the work was done\n")


def test_a_closed_terminal_is_a_signal_too_but_not_under_nohup() -> None:
    process = run_script(SWALLOWS)
    process.send_signal(signal.SIGHUP)
    assert ended(process, within=2)[0] == 128 + signal.SIGHUP
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = run_script(SWALLOWS)
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    process.terminate()
    assert ended(process, within=2)[0] == 128 + signal.SIGTERM


def test_deferred_signals_are_remembered_granted_in_parts_and_raised_at_the_end() -> None:
    before = [signal.getsignal(number) for number in WATCHED]
    steps: list[str] = []

    def work(listener: Listener) -> None:
        with saying("stopped here"), listener.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("remembered")
            with pytest.raises(Interrupted), listener.granted():
                steps.append("never")
            with pytest.raises(Interrupted):
                check()
            steps.append("done")

    with listening() as listener, pytest.raises(Interrupted, match="stopped here") as stopped:
        work(listener)
    assert steps == ["remembered", "done"]
    assert stopped.value.signal == signal.SIGTERM
    assert [signal.getsignal(number) for number in WATCHED] == before
    check()  # nobody listens any more


def test_a_second_signal_interrupts_a_users_own_process() -> None:
    with pytest.raises(KeyboardInterrupt):
        defer(lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])


@pytest.mark.parametrize("command", [False, True])
def test_the_end_of_the_time_is_no_second_signal(command: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint that a first one asked for may just be written."""
    ended: list[int] = []
    monkeypatch.setattr(Listener, "_end", lambda self, number: ended.append(number))

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGALRM)
        time.sleep(0.2)

    with pytest.raises(Interrupted) as stopped, listening(command), limited(60):
        defer(work)
    assert stopped.value.signal == signal.SIGTERM
    assert not ended


def test_ranks_that_stop_together_are_not_stopped_alone() -> None:
    steps: list[str] = []

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        check()
        steps.append("done")

    with pytest.raises(Interrupted):
        defer(work, together=True)
    assert steps == ["done"]


def defer(work: Callable[[], object], together: bool = False) -> None:
    with listening() as listener, listener.deferred(together):
        work()


def test_a_signal_that_a_host_hears_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python cannot put back what a program has set that it is a part of (R, say)."""
    theirs = {signal.SIGINT: None}
    set_anew: list[int] = []
    get, put = signal.getsignal, signal.signal

    def set_(number: int, handler: object) -> object:
        set_anew.append(number)
        return put(number, handler)  # type: ignore[arg-type]

    monkeypatch.setattr(signal, "getsignal", lambda number: theirs.get(number, get(number)))
    monkeypatch.setattr(signal, "signal", set_)
    with listening():
        pass
    assert signal.SIGINT not in set_anew
    assert signal.SIGTERM in set_anew
