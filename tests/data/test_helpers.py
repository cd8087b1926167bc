"""Processes that read images for threads: the same as without them, whatever becomes of them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image, ImageFile

from residual import InputError
from residual.data import helpers, images
from residual.data.crops import ScaleCrop, read_parts
from residual.data.folder import FolderIndex
from residual.data.helpers import Helpers, few
from residual.data.statistics import measure
from residual.data.stream import StreamBatches
from residual.distributed import World
from residual.evaluation.labelled import ImagesInFiles
from residual.evaluation.views import crop_views, make_views
from residual.models.preprocessing import Preprocessing


def pid(_: object = None) -> int:
    return os.getpid()


def memory() -> int:
    return images._budget.all


def folder() -> str:
    return os.getcwd()


def interrupted() -> None:
    time.sleep(60)


class Unpicklable:
    """What this process can give, and a helper cannot take."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return int, ("no number",)


def waits(_: object) -> int:
    time.sleep(0.05)
    return os.getpid()


def signals_ignored() -> list[bool]:
    return [signal.getsignal(heard) is signal.SIG_IGN for heard in (signal.SIGINT, signal.SIGTERM)]


def until(happened: Callable[[], object], seconds: float = 60) -> None:
    last = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < last
        time.sleep(0.02)


def begun(number: int) -> Helpers:
    started = Helpers(number)
    while not started.alive:
        started(pid)
    return started


@pytest.fixture(scope="module")
def two() -> Iterator[Helpers]:
    started = begun(2)
    yield started
    started.end()


@pytest.fixture
def helped(two: Helpers, monkeypatch: pytest.MonkeyPatch) -> Helpers:
    """Whatever is read in this test is read by helpers."""
    monkeypatch.setattr(helpers, "_helpers", two)
    return two


def test_they_begin_when_there_is_enough_to_do() -> None:
    started = Helpers(1)
    for _ in range(helpers.BEFORE - 1):
        assert started(pid) == os.getpid()
    assert not started.all
    until(lambda: started(pid) != os.getpid())
    started.end()


@pytest.mark.parametrize(("threads", "most", "here"), [(2, 16, False), (6, 16, True), (6, 2, False)])
def test_threads_are_helped_by_all_of_them(
    threads: int, most: int, here: bool, two: Helpers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More threads than helpers work themselves, unless there are as many helpers as there ever are."""
    monkeypatch.setattr(helpers, "MOST", most)
    with ThreadPoolExecutor(threads) as pool:
        found = set(pool.map(lambda number: two(waits, number), range(24)))
    assert len(found - {os.getpid()}) == 2
    assert (os.getpid() in found) == here
    assert two(signals_ignored) == [True, True]
    # Together they take no more memory for decoding than this process.
    assert two(memory) == images.MEMORY // 2


def test_images_are_the_same_bits(plain_colours: FolderIndex, helped: Helpers) -> None:
    plain_colours.path(4).write_bytes(b"damaged")

    def batches() -> list[torch.Tensor]:
        stream = StreamBatches(
            plain_colours,
            ScaleCrop(8, 9, 12),
            Preprocessing(torch.zeros(3)),
            4,
            True,
            None,
            0,
            torch.device("cpu"),
        )
        return [stream(number)[0] for number in range(3)]

    assert helped.free.qsize() == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helpers, "_helpers", Helpers(0))
        mine = batches()
        statistics = measure(plain_colours, 8, 9)
    for theirs, ours in zip(batches(), mine, strict=True):
        assert torch.equal(theirs, ours)
    found = measure(plain_colours, 8, 9)
    assert torch.equal(found.mean, statistics.mean)
    assert torch.equal(found.covariance, statistics.covariance)
    assert found.unreadable == statistics.unreadable != {}


def test_images_are_tested_on_the_same_bits(plain_colours: FolderIndex, helped: Helpers) -> None:
    plain_colours.path(4).write_bytes(b"damaged")

    def seen() -> tuple[list[torch.Tensor], list[int], list[str]]:
        damaged: list[str] = []
        views = make_views("ten-crop", 8, 12, sides=(10, 12))
        batches = ImagesInFiles(plain_colours).batches(
            views, 3, World(), lambda id, error: damaged.append(f"{id}: {error}")
        )
        crops, numbers = zip(*batches, strict=True)
        return [part for parts in crops for part in parts], [n for some in numbers for n in some], damaged

    theirs = seen()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helpers, "_helpers", Helpers(0))
        mine = seen()
    assert theirs[1:] == mine[1:]
    assert theirs[1] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    (damaged,) = theirs[2]
    assert damaged.startswith(plain_colours.ids[4])
    for part, same in zip(theirs[0], mine[0], strict=True):
        assert torch.equal(part, same)


@pytest.mark.long
def test_what_a_helper_cannot_do_is_done_here(tmp_path: Path, two: Helpers) -> None:
    """An image that takes more than its part of the memory; and errors, which are raised here."""
    Image.new("RGB", (11000, 9000), (1, 2, 3)).save(tmp_path / "large.png")
    paths, numbers = [tmp_path / "large.png"], np.zeros((1, 3), np.float32)
    pixels = two(read_parts, paths, ScaleCrop(8, 8, 8), numbers, [False])
    assert pixels[0, 0, 0].tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="there is no such file"):
        two(images.decode, tmp_path / "none.png")
    assert two.alive == 2


def test_relative_paths_are_from_where_this_process_is(
    two: Helpers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert two(folder) == str(tmp_path.resolve())
    monkeypatch.chdir(ROOT)
    assert two(folder) == str(ROOT)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert two(pid) == os.getpid()
    monkeypatch.chdir(ROOT)
    assert two(pid) != os.getpid()


def test_what_only_a_helper_calls_damaged_is_read(
    plain_colours: FolderIndex, helped: Helpers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file, which this program has asked Pillow to take."""
    path, noise = plain_colours.path(4), np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path, "jpeg")
    path.write_bytes(path.read_bytes()[:-1000])
    assert list(measure(plain_colours, 8, 9).unreadable) == [plain_colours.ids[4]]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert measure(plain_colours, 8, 9).unreadable == {}


def test_a_request_that_cannot_be_read_spoils_no_other(two: Helpers) -> None:
    unreadable = Unpicklable()
    assert two(id, unreadable) == id(unreadable)
    assert two(pid) != os.getpid()
    assert two.alive == 2


def test_who_is_interrupted_waits_for_no_helper() -> None:
    started = begun(1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            started(interrupted)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert started(pid) == os.getpid()
    assert started.alive == 0
    started.end()
    assert started(pid) == os.getpid()


def test_one_that_is_ended_costs_nothing_and_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    started = begun(2)
    with ThreadPoolExecutor(4) as pool:
        assert started(pid) != os.getpid()
        for helper in started.all:
            os.kill(helper.process.pid, signal.SIGKILL)
            helper.process.wait()
        assert set(pool.map(started, [pid] * 8)) == {os.getpid()}
    assert started.alive == 0
    said = capsys.readouterr().err
    assert said.count("a process that reads images has ended, perhaps for want of memory; ") == 2
    assert "; 1 of them read on, more slowly" in said
    assert "; this process reads alone, more slowly" in said
    started.end()


def test_where_no_process_can_be_started_this_one_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    said: list[str] = []
    monkeypatch.setattr(subprocess, "Popen", refused)
    monkeypatch.setattr(helpers, "note", said.append)
    started = Helpers(2)
    assert {started(pid) for _ in range(2 * helpers.BEFORE)} == {os.getpid()}
    until(lambda: bool(said))
    assert started(pid) == os.getpid()
    assert said == ["2 of 2 processes that read images did not start; this process reads alone, more slowly"]


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_they_end_when_this_process_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from residual.data.helpers import Helpers; h = Helpers(1)\n"
        "while not h.alive: h(os.getpid)\n"
        "print(h(os.getpid), flush=True)\n"
        # A process that was forked from it, and outlives it.
        "if os.fork(): time.sleep(60)\n"
        "else: time.sleep(45)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment, text=True
    ) as it:
        assert it.stdout
        helper = int(it.stdout.readline())
        os.kill(helper, 0)
        it.kill()

    def gone() -> bool:
        try:
            # Where nobody has waited for it yet, it is a zombie.
            return Path(f"/proc/{helper}/stat").read_text(encoding="utf-8").split()[2] == "Z"
        except FileNotFoundError:
            return True

    # Before the forked one ends, which has let it go.
    until(gone, 30)


def test_they_are_for_many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((1, 0), (helpers.LEAST_CORES - 1, 0), (helpers.LEAST_CORES, 4), (96, 16)):
        monkeypatch.setattr(helpers, "cores", lambda cores=cores: cores)
        assert helpers._number() == expected
    with monkeypatch.context() as patch:
        patch.setattr(sys, "frozen", True, raising=False)
        assert helpers._number() == 0
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "another")
    assert helpers._number() == 0


def test_a_call_is_worth_its_while() -> None:
    """Many small images, and few large ones: others seldom wait, and each thread has something to do."""
    sizes = (32, 64, 224, 448, 4000)
    assert [len(few(100, size**2)[0]) for size in sizes] == [32, 32, 13, 3, 1]
    assert [len(few(128, 32**2, threads)[0]) for threads in (16, 2, 200)] == [8, 32, 1]
    # Of a test image come all its views.
    ten = make_views("ten-crop", 224, sides=(224, 256, 384))
    seen = crop_views(torch.zeros(1, 300, 300, dtype=torch.uint8), ten)
    assert ten.pixels == sum(part.numel() for part in seen)
    assert len(few(100, ten.pixels)[0]) == 1
    assert make_views("multi-scale", sides=(8, 16)).pixels == 320
    assert few(70, 64**2) == [range(32), range(32, 64), range(64, 70)]
    assert few(0, 64**2, 4) == []
