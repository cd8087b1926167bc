"""Work done in threads: in order, ahead and no further than it should be, by as many as a rank may have."""

import itertools
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from conftest import CPU, ROOT, pixels_of, save_network, smooth_image
from PIL import Image

import residual
from residual.data.box_batches import BoxBatches
from residual.data.boxes import BoxDataset
from residual.data.crops import ScaleCrop
from residual.data.folder import FolderIndex
from residual.data.statistics import measure
from residual.data.stream import StreamBatches
from residual.data.threads import Prefetch, in_threads
from residual.data.voc import load_voc
from residual.distributed import World
from residual.evaluation.labelled import ImagesInFiles
from residual.evaluation.views import make_views
from residual.run import folder_statistics

# --- one thing after the other ---


def test_threads_keep_the_order_and_stay_near() -> None:
    started = []
    results = in_threads(lambda n: started.append(n) or n * n, range(1000), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(started) <= 3 + 2 * 2
    assert list(results) == [n * n for n in range(3, 1000)]


def test_how_far_ahead_can_be_said() -> None:
    """What is large (whole images at their full size) is to be few at a time, whatever the threads."""
    started: list[int] = []
    results = in_threads(lambda n: started.append(n) or n, range(1000), workers=4, ahead=2)
    for number in range(5):
        assert next(results) == number
        assert len(started) <= number + 1 + 2
    assert list(results) == list(range(5, 1000))


def test_an_error_in_a_thread_is_raised_where_its_result_is() -> None:
    results = in_threads(lambda n: 1 // (2 - n), range(10))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_items_are_taken_as_they_are_needed() -> None:
    taken = []

    def items():  # type: ignore[no-untyped-def]
        for number in itertools.count():
            taken.append(number)
            yield number

    results = in_threads(str, items(), workers=2)
    assert taken == []
    assert list(itertools.islice(results, 50)) == [str(number) for number in range(50)]
    assert len(taken) <= 50 + 2 * 2
    results.close()  # type: ignore[attr-defined]


def test_nothing_goes_on_after_the_last_result_that_was_wanted() -> None:
    started: list[int] = []

    def slowly(number: int) -> int:
        started.append(number)
        time.sleep(0.01)
        return number

    before = decoders()
    results = in_threads(slowly, itertools.count(), workers=2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    reached = len(started)
    assert reached <= 1 + 2 * 2
    # Its threads have ended, so nothing can start any more.
    assert decoders() <= before
    assert len(started) == reached


def test_nothing_at_all() -> None:
    assert list(in_threads(str, [])) == []


# --- iterations ---


class Squares:
    """Three tasks an iteration; iteration 5 has one that fails."""

    def __init__(self) -> None:
        self.begun: list[int] = []

    def __call__(self, iteration: int) -> tuple[str, list[Callable[[], int]]]:
        self.begun.append(iteration)
        tasks = [partial(self.task, iteration, place) for place in range(3)]
        return f"shared by {iteration}", tasks

    @staticmethod
    def task(iteration: int, place: int) -> int:
        if (iteration, place) == (5, 1):
            raise ValueError("no such square")
        return (10 * iteration + place) ** 2


def test_iterations_are_begun_ahead_and_no_further() -> None:
    squares = Squares()
    prefetch = Prefetch(squares, ahead=3, workers=2)
    for iteration in range(4):
        assert prefetch(iteration) == (
            f"shared by {iteration}",
            [(10 * iteration + place) ** 2 for place in range(3)],
        )
        assert squares.begun == list(range(iteration + 3))


def test_another_iteration_than_the_next_starts_anew() -> None:
    squares = Squares()
    prefetch = Prefetch(squares, ahead=2, workers=2)
    prefetch(0)
    assert prefetch(7)[1][0] == 70**2
    assert prefetch(1)[1][0] == 10**2
    assert squares.begun == [0, 1, 7, 8, 1, 2]


def test_an_error_is_raised_in_its_iteration_and_the_next_goes_on() -> None:
    prefetch = Prefetch(Squares(), ahead=3, workers=2)
    prefetch(4)
    with pytest.raises(ValueError, match="no such square"):
        prefetch(5)
    assert prefetch(6)[1] == [3600, 3721, 3844]


def test_what_is_under_way_can_be_dropped() -> None:
    running, done = threading.Event(), []

    def begin(iteration: int) -> tuple[None, list[Callable[[], None]]]:
        def task() -> None:
            if iteration:
                running.wait(10)
            done.append(iteration)

        return None, [task]

    prefetch = Prefetch(begin, ahead=5, workers=1)
    prefetch(0)
    prefetch.close()
    running.set()
    # One had begun and ends; those that waited for the thread are gone.
    assert prefetch(9) == (None, [None])
    assert done[0] == 0
    assert 9 in done
    assert not {2, 3, 4} & set(done)


def test_the_time_spent_waiting_is_told() -> None:
    prefetch = Prefetch(lambda _: (None, [lambda: time.sleep(0.05)]), ahead=1, workers=1)
    assert prefetch.waited == 0
    prefetch(0)
    assert 0.04 < prefetch.waited < 5


# --- cores ---


def decoders() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("decode")}


class Watch:
    """Counts how many calls are under way at once.

    Args:
        expected: the first calls wait for so many, a while; later ones take a little longer than nothing.
    """

    def __init__(self, expected: int) -> None:
        self.now = self.most = 0
        self.expected = expected
        self.changed = threading.Condition()

    def __enter__(self) -> None:
        with self.changed:
            self.now += 1
            self.most = max(self.most, self.now)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.most >= self.expected, timeout=5)
        time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self.now -= 1


@pytest.fixture
def eight_cores_for_four_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")


@pytest.mark.parametrize(("ranks", "threads"), [(None, 8), ("1", 8), ("4", 2), ("8", 1), ("16", 1)])
def test_ranks_on_a_machine_share_its_cores(
    ranks: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    watch = Watch(threads)

    def work(number: int) -> int:
        with watch:
            return number

    assert list(in_threads(work, range(40))) == list(range(40))
    assert watch.most == threads
    watch = Watch(threads)
    prefetch = Prefetch(lambda n: (None, [partial(work, place) for place in range(20)]), ahead=2)
    prefetch(0)
    assert watch.most == threads


def stream(index: FolderIndex, shapes: BoxDataset, weights: Path) -> object:
    crop = ScaleCrop(size=8, low=9, high=12)
    return StreamBatches(index, crop, lambda x: x.float(), 11, False, None, 0, CPU)(0)


def boxes(index: FolderIndex, shapes: BoxDataset, weights: Path) -> object:
    return BoxBatches(shapes, lambda width, height, scale: (width, height), 8, False, 0)(0)


def statistics(index: FolderIndex, shapes: BoxDataset, weights: Path) -> object:
    return measure(index, 8, 8)


def evaluated(index: FolderIndex, shapes: BoxDataset, weights: Path) -> object:
    return list(ImagesInFiles(index).batches(make_views("center", 8, 9), 3, World(), lambda *_: None))


def predicted(index: FolderIndex, shapes: BoxDataset, weights: Path) -> object:
    return residual.load(weights, device="cpu").predict([index.path(n) for n in range(len(index))])


@pytest.mark.usefixtures("eight_cores_for_four_ranks")
@pytest.mark.parametrize("reader", [stream, boxes, statistics, evaluated, predicted])
def test_every_reader_takes_its_ranks_share_of_the_cores(
    reader: Callable[[FolderIndex, BoxDataset, Path], object],
    plain_colours: FolderIndex,
    few_shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = save_network(tmp_path / "weights")
    # Which reads the images' sizes, one after the other.
    shapes = load_voc(few_shapes, ["train"])
    watch, original = Watch(2), Image.open

    def watched(*given: object, **named: object) -> Image.Image:
        with watch:
            return original(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", watched)
    reader(plain_colours, shapes, weights)
    assert watch.most == 2


@pytest.mark.usefixtures("eight_cores_for_four_ranks")
def test_the_rank_that_measures_while_the_others_wait_takes_all_cores(
    plain_colours: FolderIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, original = Watch(8), Image.open

    def watched(*given: object, **named: object) -> Image.Image:
        with watch:
            return original(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", watched)
    assert folder_statistics(plain_colours.root.parent, 8)[1].images == 11
    assert watch.most == 8


def test_there_is_no_other_pool_of_threads() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "residual").rglob("*.py")
        if "ThreadPool" in path.read_text(encoding="utf-8")
        or "DataLoader(" in path.read_text(encoding="utf-8")
    }
    # One for all that is read, and one for BN groups: a thread for each copy of the network.
    assert found == {"residual/data/threads.py", "residual/training/groups.py"}


def test_images_in_memory_are_read_by_threads_too(tmp_path: Path) -> None:
    """What is given as an image goes the same way as a file, and comes out in the same order."""
    network = residual.load(save_network(tmp_path / "weights"), device="cpu")
    images = [smooth_image(seed=seed) for seed in range(5)]
    rows = network.probabilities(
        [image if seed % 2 else pixels_of(image) for seed, image in enumerate(images)]
    )
    for row, image in zip(rows, images, strict=True):
        assert (network.probabilities(image)[0] - row).abs().max() < 1e-6
