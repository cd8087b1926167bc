"""The device that computes: wrong names, its arithmetic whoever asks for it, its memory."""

import ctypes
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import (
    BEGUN,
    TINY,
    Shown,
    metrics_of,
    save_network,
    sentence_of,
    set_options,
    smooth_image,
)
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import residual
from residual import InputError, run
from residual.detection.training import DetectionIterations
from residual.device import (
    arithmetic,
    full_float32,
    keep_freed_memory,
    memory_ran_out,
    open_device,
    pick_device,
    send,
)
from residual.evaluation.metrics import Tally
from residual.inference.evaluation import EvaluationOptions, evaluate
from residual.inference.layers import layer_responses, layer_signals
from residual.models.packed import PackedConv2d
from residual.recipes import DetectionRecipe, find, override
from residual.training.iteration import EagerIterations

CUDA = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave PyTorch's switches as they were."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    precision, exact = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(exact)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with two GPUs, as far as asking goes; return what was made the current one."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return current


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


# --- names ---


@pytest.mark.parametrize("name", ["tpu", "", "gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "meta", "cpu,cuda"])
def test_names_of_no_device(name: str) -> None:
    said = sentence_of(lambda: pick_device(name))
    assert said == f"--device {name}: known are auto, cpu, cuda, cuda:N and mps"


def test_no_name_at_all_is_no_device() -> None:
    said = sentence_of(lambda: pick_device(None))  # type: ignore[arg-type]
    assert said == "--device None: known are auto, cpu, cuda, cuda:N and mps"


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_where_there_is_none(name: str) -> None:
    said = sentence_of(lambda: pick_device(name))
    assert said.startswith(f"--device {'cuda:0' if name == 'cuda' else name}: PyTorch sees no GPU here")
    assert "--device cpu" in said


@pytest.mark.usefixtures("no_gpu")
def test_auto_without_a_gpu_is_the_cpu() -> None:
    assert pick_device("auto") == torch.device("cpu")
    assert pick_device("cpu") == torch.device("cpu")


def test_each_process_has_its_gpu(two_gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("auto") == pick_device("cuda") == CUDA
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda:1")
    # One that is named is taken, whatever the rank.
    assert pick_device("cuda:0") == CUDA
    assert pick_device("cpu") == torch.device("cpu")
    # The current one is for those who compute.
    assert not two_gpus


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--device cuda:2: PyTorch sees 2 GPUs here" in sentence_of(lambda: pick_device("cuda:2"))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("LOCAL_RANK", "2")
    said = sentence_of(lambda: pick_device("auto"))
    assert "torchrun with as many processes as there are GPUs" in said


def test_apples_gpu_is_taken_where_it_is_named(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert sentence_of(lambda: pick_device("mps")) == (
        "--device mps: PyTorch sees no GPU of Apple's here; use --device cpu"
    )
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps") == torch.device("mps")
    assert pick_device("auto") == torch.device("cpu")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert "start it without torchrun" in sentence_of(lambda: pick_device("mps"))


class Float32AtMost(TorchDispatchMode):
    """Refuses what Apple's GPUs refuse: a tensor of float64."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        found = function(*arguments, **(options or {}))
        for value in tree_leaves(found):
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                raise TypeError(f"{function} gives float64")
        return found


def test_a_device_without_float64_needs_none(
    few_shapes: Path, tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done on the device, in training and in testing; what is measured beforehand is the CPU's."""

    def on_the_device(kind: type[Any], name: str) -> None:
        inner = getattr(kind, name)

        def call(*arguments: Any, **options: Any) -> Any:
            entered.add(f"{kind.__name__}.{name}")
            with Float32AtMost():
                return inner(*arguments, **options)

        monkeypatch.setattr(kind, name, call)

    entered: set[str] = set()
    on_the_device(EagerIterations, "__call__")
    on_the_device(DetectionIterations, "__call__")
    on_the_device(Tally, "add")
    short = ["--set", "schedule.iterations=3", "--out"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the traceback of a fault of our own goes
    with pytest.raises(AssertionError, match="TypeError"):
        shown("train", *TINY, *short, tmp_path / "float64")
    (traceback,) = tmp_path.glob("residual-traceback-*")
    assert "gives float64" in traceback.read_text()
    monkeypatch.setattr("residual.device.WITHOUT_FLOAT64", {"cpu"})
    shown("train", *TINY, *short, tmp_path / "classifier")
    shown(
        "detect",
        "train",
        "voc-finetune",
        *set_options(BEGUN),
        "--data-dir",
        few_shapes,
        *short,
        tmp_path / "detector",
    )
    assert entered == {"EagerIterations.__call__", "DetectionIterations.__call__", "Tally.add"}


# --- arithmetic ---


def switches() -> tuple[bool, str, bool, bool]:
    return (
        torch.backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
    )


def test_what_has_no_kernel_that_repeats_is_warned_of_afterwards_where_it_was_before() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with arithmetic(CUDA, "float32", deterministic=True, one_size=True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("precision", "deterministic", "one_size", "expected"),
    [
        ("float32", False, False, (False, "highest", False, False)),
        ("tf32", False, False, (True, "high", False, False)),
        ("bfloat16", False, True, (True, "high", True, False)),
        ("float32", True, True, (False, "highest", False, True)),
        ("tf32", True, False, (True, "high", False, True)),
    ],
)
def test_how_a_gpu_computes(
    precision: str, deterministic: bool, one_size: bool, expected: tuple[bool, str, bool, bool]
) -> None:
    # The opposite around, so that what is not set shows.
    around = ("float32" if expected[0] else "tf32", not expected[3], not expected[2])
    with arithmetic(CUDA, *around):
        before = switches()
        with arithmetic(CUDA, precision, deterministic, one_size):
            assert switches() == expected
        # And nothing is left of it for those who work on in this process.
        assert switches() == before
        with pytest.raises(ZeroDivisionError), arithmetic(CUDA, precision, deterministic, one_size):
            raise ZeroDivisionError
        assert switches() == before
    if deterministic:
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_cpu_needs_no_switch() -> None:
    before = switches()
    with arithmetic(torch.device("cpu"), "tf32", deterministic=True, one_size=True):
        assert switches() == before
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_float32_is_float32_in_testing_and_afterwards_all_is_as_before() -> None:
    with arithmetic(CUDA, "tf32", deterministic=False, one_size=True):
        with full_float32(CUDA):
            # Nor does timing choose kernels there, which differ in their last digits.
            assert switches() == (False, "highest", False, False)
        assert switches() == (True, "high", True, False)
        with pytest.raises(ZeroDivisionError), full_float32(CUDA):
            raise ZeroDivisionError
        assert switches() == (True, "high", True, False)
        with full_float32(torch.device("cpu")):
            assert switches() == (True, "high", True, False)


def test_threads_that_test_side_by_side_leave_what_was_set() -> None:
    with arithmetic(CUDA, "tf32", deterministic=False, one_size=True):
        first, second = full_float32(CUDA), full_float32(CUDA)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert switches() == (False, "highest", False, False)
        second.__exit__(None, None, None)
        assert switches() == (True, "high", True, False)


@pytest.fixture
def newer() -> Iterator[Callable[[], list[str]]]:
    """How PyTorch's newer switches stand: of convolutions and products on a GPU, and of everything."""
    switches = (torch.backends.cudnn.conv, torch.backends.cuda.matmul, torch.backends)
    before = [each.fp32_precision for each in switches]
    yield lambda: [each.fp32_precision for each in switches]
    for each, precision in zip(switches, before, strict=True):
        each.fp32_precision = precision


def test_switches_that_were_set_the_newer_way_are_kept(newer: Callable[[], list[str]]) -> None:
    """PyTorch refuses to read them the older way."""
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    allowed = torch.backends.cudnn.allow_tf32
    with full_float32(CUDA):
        assert newer()[:2] == ["ieee", "ieee"]
    # What can be read the older way still can.
    assert torch.backends.cudnn.allow_tf32 == allowed
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    before = newer()
    with full_float32(CUDA):
        assert newer()[:2] == ["ieee", "ieee"]
    assert newer() == before
    with arithmetic(CUDA, "tf32", deterministic=False, one_size=True):
        assert newer()[:2] == ["tf32", "tf32"]
        with full_float32(CUDA):
            assert newer()[:2] == ["ieee", "ieee"]
    assert newer() == before


def test_float32_is_float32_whatever_is_set_for_everything(newer: Callable[[], list[str]]) -> None:
    torch.backends.fp32_precision = "tf32"
    with full_float32(CUDA):
        assert newer()[:2] == ["ieee", "ieee"]


def test_testing_takes_kernels_that_repeat_whoever_asks() -> None:
    """Others would round otherwise in a run with --deterministic than after it."""
    with full_float32(CUDA):
        assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.deterministic


class Watched:
    """Tells of each convolution whether it computes in ``full_float32`` or not.

    Attributes:
        seen: (whether the layer is in training, whether float32 is float32).
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.depth = 0
        self.seen: set[tuple[bool, bool]] = set()
        # Wherever it is used by its name.
        for name, module in list(sys.modules.items()):
            if name.startswith("residual.") and name != "residual.device" and hasattr(module, "full_float32"):
                patch.setattr(module, "full_float32", self.context)

    @contextmanager
    def context(self, device: torch.device) -> Iterator[None]:
        self.depth += 1
        yield
        self.depth -= 1

    def hook(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        # Whether a network takes images of some size is asked with one, on the CPU.
        if isinstance(module, nn.Conv2d | PackedConv2d) and len(inputs[0]) > 1:
            self.seen.add((module.training, self.depth > 0))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    watched = Watched(monkeypatch)
    handle = register_module_forward_pre_hook(watched.hook)
    yield watched
    handle.remove()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_network(tmp_path / "weights", classes="0123456789", mean=torch.zeros(1, 8, 8))


def test_a_network_that_is_used_computes_in_float32(weights: Path, watched: Watched) -> None:
    network = residual.load(weights, device="cpu")
    network.predict([smooth_image(seed=seed) for seed in range(3)])
    assert watched.seen == {(False, True)}


def test_a_network_that_is_tested_computes_in_float32(weights: Path, watched: Watched) -> None:
    evaluate(weights, EvaluationOptions("digits"), device="cpu")
    assert watched.seen == {(False, True)}


def test_a_network_that_is_looked_into_computes_in_float32(weights: Path, watched: Watched) -> None:
    layer_responses(weights, "digits", None, 10, "cpu")
    assert watched.seen == {(False, True)}
    # Signals are those of a training step, gradients and all.
    layer_signals(weights, "digits", None, 1, "cpu")
    assert watched.seen == {(False, True), (True, True)}


def test_a_detector_that_is_used_computes_in_float32(
    begun_detector: Path, few_shapes: Path, watched: Watched
) -> None:
    detector = residual.load_detector(begun_detector, device="cpu", refine=True, scales=(32, 48))
    detector.predict(few_shapes / "JPEGImages" / "test000.png")
    assert watched.seen == {(False, True)}


@pytest.mark.parametrize("detection", [False, True], ids=["classifier", "detector"])
def test_a_run_is_tested_in_float32_and_trained_as_its_recipe_says(
    detection: bool, few_shapes: Path, tmp_path: Path, shown: Shown, watched: Watched
) -> None:
    short = ["--set", "schedule.iterations=4", "--out", tmp_path / "run"]
    if detection:
        shown("detect", "train", "voc-finetune", *set_options(BEGUN), "--data-dir", few_shapes, *short)
        # BN statistics of a network from scratch are measured first, as in training.
        assert watched.seen >= {(False, True), (True, False)}
        assert (True, True) not in watched.seen
    else:
        shown("train", *TINY, *short)
        # BN statistics are averaged as they are used.
        assert watched.seen == {(False, True), (True, False), (True, True)}


@pytest.mark.gpu
def test_a_network_gives_on_a_gpu_what_it_gives_on_a_cpu(weights: Path) -> None:
    images = [smooth_image(seed=seed) for seed in range(3)]
    cpu, gpu = (residual.load(weights, device=device) for device in ("cpu", "cuda"))
    torch.testing.assert_close(gpu.probabilities(images), cpu.probabilities(images), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(
        gpu.heat(images[0], "3").scores, cpu.heat(images[0], "3").scores, rtol=1e-3, atol=1e-4
    )
    mine, theirs = (
        evaluate(weights, EvaluationOptions("digits"), device=device).metrics for device in ("cuda", "cpu")
    )
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-3)
    assert mine.top1_error == pytest.approx(theirs.top1_error, abs=0.6)
    on_gpu, on_cpu = (layer_responses(weights, "digits", None, 100, device)[0] for device in ("cuda", "cpu"))
    assert [each.std for each in on_gpu] == pytest.approx([each.std for each in on_cpu], rel=1e-3)
    on_gpu, on_cpu = (layer_signals(weights, "digits", None, 1, device) for device in ("cuda", "cpu"))
    for moment in on_cpu:
        mine, theirs = ([each.gradient_norm for each in which[moment]] for which in (on_gpu, on_cpu))
        assert mine == pytest.approx(theirs, rel=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["pool", "align"])
def test_a_detector_learns_on_a_gpu_what_it_learns_on_a_cpu(
    pooling: str, few_shapes: Path, tmp_path: Path
) -> None:
    settings = [*BEGUN, f"detector.pooling={pooling}", "precision=float32"]
    recipe = override(find("voc-finetune", DetectionRecipe), settings)
    losses, best = [], []
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        run.train(recipe, out, data_dir=few_shapes, device=device)
        losses.append(metrics_of(out)[0]["train"]["loss"])
        detector = residual.load_detector(tmp_path / "cpu", device=device, refine=True, scales=(32, 48))
        best.append(detector.predict(few_shapes / "JPEGImages" / "test000.png", 0.0).scores[0].item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert best[1] == pytest.approx(best[0], abs=0.02)


@pytest.mark.usefixtures("two_gpus")
def test_a_device_for_trained_networks_leaves_the_switches_alone() -> None:
    before = switches()
    assert open_device("auto") == CUDA
    assert open_device("cuda:1") == torch.device("cuda:1")
    assert switches() == before


def test_the_current_gpu_is_the_runs_own_for_as_long_as_it_lasts(
    two_gpus: list[torch.device], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may compute on another one."""
    at = [0]

    def exchange(index: int) -> int:
        at.append(index)
        return at[-2]

    def stopped(*_: object) -> None:
        at.append(-1)
        raise InputError("none today")

    for name in ("_exchange_device", "_maybe_exchange_device"):
        monkeypatch.setattr(torch.cuda, name, exchange)
    monkeypatch.setattr("residual.run.classification.ClassificationTask.place", stopped)
    for device, seen in (("cuda:1", [0, 1, -1, 0]), ("cpu", [0, -1])):
        del at[1:]
        with pytest.raises(InputError, match="none today"):
            run.train(find("digits-resnet8"), tmp_path / device, device=device)
        assert at == seen
    assert not two_gpus


# --- copies ---


def test_a_gpu_is_sent_pinned_memory_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, object]] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        done.append(("pinned", tensor.numel()))
        return tensor

    def to(tensor: torch.Tensor, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
        done.append((device.type, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    send(torch.zeros(3), CUDA)
    assert done == [("pinned", 3), ("cuda", True)]
    # There is no memory to pin of nothing, and none of the CPU's.
    done.clear()
    send(torch.zeros(0, 4), CUDA)
    send(torch.zeros(3), torch.device("cpu"))
    assert done == [("cuda", False), ("cpu", False)]


# --- memory ---


def test_freed_memory_is_kept_on_glibc_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    class Library:
        @staticmethod
        def mallopt(option: int, value: int) -> None:
            asked.append((option, value))

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    keep_freed_memory()
    assert asked == []
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    keep_freed_memory()
    # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h.
    assert asked == [(-3, 2**31 - 1), (-1, 2**31 - 1)]
    # A C library that calls itself so and has no such call is as good as another one.
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    keep_freed_memory()


def test_what_is_said_when_the_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 60 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 62 * 2**30)
    said = memory_ran_out(CUDA)
    assert "this run had taken 60.0 GiB and needed more" in said
    assert "other programs hold 17.0 of the GPU's 80.0 GiB" in said
    # Each kind of run is told of what it has: only residual train knows --eager.
    assert "of a classifier with --eager (one BN group), of a detector or a localizer with" in said
    assert "batch.size" in said
    # What Apple's GPUs have left nobody tells.
    said = memory_ran_out(torch.device("mps"))
    assert said.startswith("the GPU's memory ran out; free some, or take fewer images at a time: of a")
