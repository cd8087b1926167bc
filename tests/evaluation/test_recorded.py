"""Tests of a network that is still learning, recorded: the same numbers, from addresses that stay."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import CPU, random_pixels, randomise, small_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from residual.data.dataset import Dataset
from residual.evaluation import labelled, recorded
from residual.evaluation.labelled import ImagesInMemory
from residual.evaluation.recorded import RecordedTests
from residual.evaluation.testing import Evaluation, evaluate
from residual.evaluation.views import score, whole_images
from residual.models import Classifier
from residual.models.inference import fold_batchnorm
from residual.models.preprocessing import Preprocessing
from residual.recording import why

IMAGES, BATCH = 25, 10
PREPARE = Preprocessing(torch.full((1,), 0.5))


class Tape(TorchDispatchMode):
    """What a CUDA graph does, on a CPU: the same kernels on the same addresses, no Python between them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, tensors_in(found)))
        return found

    @torch.inference_mode()
    def replay(self) -> None:
        for func, args, kwargs, found in self.calls:
            for old, new in zip(found, tensors_in(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def tensors_in(found: Any) -> list[Tensor]:
    return [each for each in tree_leaves(found) if isinstance(each, Tensor)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two whole batches of images in memory, and a part of one."""
    monkeypatch.setitem(labelled.BATCH_IN_MEMORY, "cpu", BATCH)
    monkeypatch.setitem(labelled.BATCH_IN_MEMORY, "cuda", BATCH)


def evaluation_of(model: Classifier, device: torch.device = CPU, **how: Any) -> Evaluation:
    generator = torch.Generator().manual_seed(2)
    targets = torch.randint(4, (IMAGES,), generator=generator)
    made = Dataset("made", tuple("abcd"), random_pixels(IMAGES, 1, 8, 8), targets, torch.arange(IMAGES))
    images, prepare = ImagesInMemory(made.to(device)), PREPARE.to(device)
    return evaluate(model, prepare, images, whole_images((1, 8, 8)), keep_scores=True, **how)


def assert_as_eager(tests: RecordedTests, device: torch.device = CPU) -> None:
    """Test twice, and once with the network folded afresh and no recording: the same bits."""
    fresh = fold_batchnorm(tests.network).to(memory_format=torch.channels_last)
    eager = evaluation_of(fresh, device)
    assert eager.probabilities is not None
    assert eager.probabilities.std() > 0.01
    for _ in range(2):
        found = evaluation_of(tests.ready(), device, scoring=tests.score)
        assert found.probabilities is not None
        assert torch.equal(found.probabilities, eager.probabilities)
        assert found.metrics.loss == eager.metrics.loss
        assert found.metrics.images == IMAGES


def learn(network: Classifier, seed: int) -> None:
    """Change every tensor in place, as training does."""
    network.load_state_dict(randomise(small_model(seed=seed), seed).state_dict())


def test_recorded_tests_replay_the_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    tapes: list[Tape] = []
    scored: list[int] = []

    def record(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        with Tape() as tape:
            work()
        tapes.append(tape)
        return tape.replay

    def counted(model: Classifier, prepare: Any, crops: list[Tensor], views: Any) -> Tensor:
        scored.append(len(crops[0]))
        return score(model, prepare, crops, views)

    monkeypatch.setattr(recorded, "record", record)
    monkeypatch.setattr(recorded, "score", counted)
    network = small_model()
    tests = RecordedTests(network, CPU, pytest.fail)
    learn(network, 1)
    assert_as_eager(tests)
    addresses = [tensor.data_ptr() for tensor in tests.ready().state_dict().values()]
    learn(network, 2)
    assert_as_eager(tests)
    assert [tensor.data_ptr() for tensor in tests.ready().state_dict().values()] == addresses
    # One recording of folding and one of a whole batch; the part is scored kernel by kernel, four times.
    assert len(tapes) == 2
    assert scored == [BATCH, 5, 5, 5, 5]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "the GPU's memory ran out; free some"),
        (
            RuntimeError("CUDA error: operation not permitted.\nMore."),
            "not permitted.; a driver for PyTorch's",
        ),
    ],
    ids=["memory", "driver"],
)
@pytest.mark.parametrize("works", [0, 1], ids=["folding", "scoring"])
def test_where_recording_fails_tests_go_on_to_the_same_bits(
    works: int, error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def fails(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        work()
        if len(tried) == works:
            raise error
        tried.append("recorded")
        return lambda: pytest.fail("what was recorded is not to be used")

    monkeypatch.setattr(recorded, "record", fails)
    said: list[str] = []
    network = small_model()
    tests = RecordedTests(network, CPU, said.append)
    for seed in (1, 2):
        learn(network, seed)
        assert_as_eager(tests)
    (sentence,) = said
    assert reason in sentence
    assert "\n" not in sentence


@pytest.mark.gpu
def test_recorded_tests_are_the_eager_ones_on_a_gpu() -> None:
    device = torch.device("cuda")
    network = small_model().to(device)
    tests = RecordedTests(network, device, pytest.fail)
    for seed in (1, 2):
        learn(network, seed)
        assert_as_eager(tests, device)


def test_a_recording_that_cannot_be_ended_is_told_by_what_ended_it() -> None:
    def fail() -> None:
        try:
            raise ValueError("an operation that is not to be recorded")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert why(caught.value, "a driver makes it") == (
        "ValueError: an operation that is not to be recorded; a driver makes it fast again"
    )
