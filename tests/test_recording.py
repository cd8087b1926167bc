"""What is recorded as a CUDA graph, on a GPU that is not there: its streams wait for each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from residual.recording import WARM_UP, record, why

CUDA = torch.device("cuda:0")


class Stream:
    """Tells which stream waited for which."""

    waits: list[tuple[str, str]]
    current: list["Stream"]

    def __init__(self, name: object = "side") -> None:
        self.name = "usual" if name == "usual" else "side"

    def wait_stream(self, other: "Stream") -> None:
        self.waits.append((self.name, other.name))


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> type[Stream]:
    Stream.waits, Stream.current = [], [Stream("usual")]

    @contextmanager
    def use(stream: Stream) -> Iterator[None]:
        Stream.current.append(stream)
        yield
        Stream.current.pop()

    @contextmanager
    def graph(recorded: Any, stream: Stream) -> Iterator[None]:
        with use(stream):
            Stream.waits.append((stream.name, "nothing more"))
            yield

    class Graph:
        def replay(self) -> None:
            raise AssertionError("nobody has asked for it")

    for name, value in {
        "Stream": Stream,
        "stream": use,
        "graph": graph,
        "CUDAGraph": Graph,
        "current_stream": lambda _: Stream.current[-1],
        "synchronize": lambda _: None,
        "empty_cache": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return Stream


def test_work_is_done_and_recorded_beside_the_usual_stream(streams: type[Stream]) -> None:
    done: list[str] = []
    assert record(lambda: done.append(streams.current[-1].name), CUDA).__name__ == "replay"
    assert done == ["side"] * (WARM_UP + 1)
    assert streams.waits == [("side", "usual"), ("usual", "side"), ("side", "nothing more")]


def test_what_failed_is_over_before_anything_is_put_back(streams: type[Stream]) -> None:
    """Kernels that were launched before the failure may still write what is put back."""

    def work() -> None:
        raise RuntimeError("no C compiler")

    with pytest.raises(RuntimeError):
        record(work, CUDA)
    assert streams.waits == [("side", "usual"), ("usual", "side")]


def test_memory_that_ran_out_is_told_from_what_a_compiler_lacks() -> None:
    said = why(
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported"), "gcc makes it"
    )
    assert said == "the GPU's memory ran out; free some, or take a smaller batch.size, to be fast again"
    assert why(RuntimeError("no compiler"), "gcc makes it") == (
        "RuntimeError: no compiler; gcc makes it fast again"
    )
