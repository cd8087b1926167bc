"""What a run of a classifier has of its own: its schedule, its numbers, and what is wrong with its input."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import (
    SMALL,
    TINY,
    Refused,
    Shown,
    assert_same_run,
    metrics_of,
    precisions_of_convolutions,
    results_of,
    sentence_of,
    set_options,
    small_recipe,
    write_images,
)

from residual import run
from residual.evaluation import recorded
from residual.inference.evaluation import EvaluationOptions, evaluate
from residual.recipes import RECIPES, Recipe, find, override
from residual.recording import record
from residual.training.checkpoint import load_checkpoint


def assert_one_number(out: Path, split: str, *parts: str) -> None:
    """Assert that the curve's end, the run's results and the evaluation that users call agree in every bit.

    Args:
        split: what the curve shows.
        parts: the splits that ``evaluate`` knows, and what the results call them, as "test=validation".
    """
    results, last = results_of(out), metrics_of(out)[-1]
    kinds = ("loss", "top1_error", "top5_error", "images")
    assert last[split] == {kind: results[split][kind] for kind in kinds}
    for part in parts:
        known, name = part.split("=")
        found = evaluate(out, EvaluationOptions(split=known), device="cpu").metrics.plain()  # type: ignore[arg-type]
        assert {kind: found[kind] for kind in kinds} == {kind: results[name][kind] for kind in kinds}


@pytest.mark.long
@pytest.mark.parametrize("size", [(200, 150), (20, 24)], ids=["larger", "smaller"])
def test_one_network_one_folder_one_number(size: tuple[int, int], tmp_path: Path, shown: Shown) -> None:
    """JPEGs larger than what is looked at, which their decoder halves, and smaller ones."""
    data = write_images(tmp_path / "images", sizes=[size], suffix="jpg")
    out = tmp_path / "run"
    shown("train", "imagenet-resnet18", *set_options(SMALL), "--data-dir", data, "--out", out)
    assert_one_number(out, "validation", "test=validation")


def test_one_network_one_dataset_one_number(tmp_path: Path, shown: Shown) -> None:
    out = tmp_path / "run"
    shown("train", *TINY, "--set", "schedule.iterations=20", "--out", out)
    assert_one_number(out, "test", "test=test", "train=train")


def test_tests_of_a_run_that_are_recorded_give_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is recorded on a GPU, here; where that fails, a sentence; and without it."""
    recipe = override(find("digits-resnet20"), ["model.name=cifar_resnet8", "schedule.iterations=20"])
    recipe = override(recipe, ["evaluate_every=10"])
    recordings: list[torch.device] = []

    def counted(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        recordings.append(device)
        return record(work, device)

    def fails(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        raise RuntimeError("CUDA error: no kernel image is available")

    monkeypatch.setattr(run.classification, "COMPILED", {"cpu"})
    monkeypatch.setattr(recorded, "record", counted)
    run.train(recipe, tmp_path / "recorded", device="cpu")
    assert recordings == [torch.device("cpu")] * 2
    monkeypatch.setattr(recorded, "record", fails)
    run.train(recipe, tmp_path / "eager", device="cpu", eager=True)
    assert "recording" not in capsys.readouterr().err
    run.train(recipe, tmp_path / "failed", device="cpu")
    said = [line for line in capsys.readouterr().err.splitlines() if "recording" in line]
    assert said == [
        "note: digits-resnet20: recording the tests of the network failed, so they go on kernel by kernel, "
        "slower, to the same numbers (RuntimeError: CUDA error: no kernel image is available; a driver for "
        "PyTorch's CUDA makes it fast again)"
    ]

    def numbers(name: str) -> list[float]:
        lines = [line["test"] for line in metrics_of(tmp_path / name)]
        results = results_of(tmp_path / name)
        assert len(lines) == 2
        return [
            each[kind] for each in (*lines, results["train"]) for kind in ("loss", "top1_error", "images")
        ]

    assert numbers("failed") == numbers("recorded")
    # On a CPU the usual tests have packed weights, and round otherwise.
    assert numbers("recorded") == pytest.approx(numbers("eager"), rel=1e-5)


@pytest.fixture(scope="module")
def on_a_gpu(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A run on a GPU, with kernels that repeat; one checkpoint is halfway."""
    settings = ["schedule.iterations=20", "evaluate_every=10", "checkpoint_every=10", "batch.bn_group=32"]
    recipe = override(find("digits-resnet20"), settings)
    out = tmp_path_factory.mktemp("runs") / "gpu"
    run.train(recipe, out, device="cuda", deterministic=True)
    return recipe, out


@pytest.mark.gpu
def test_one_network_one_dataset_one_number_on_a_gpu(on_a_gpu: tuple[Recipe, Path]) -> None:
    """Recorded tests of the run beside those of the weights that it leaves, which are not."""
    _, out = on_a_gpu
    results, last = results_of(out)["test"], metrics_of(out)[-1]["test"]
    found = evaluate(out, EvaluationOptions(split="test"), device="cuda").metrics.plain()
    for kind in ("loss", "top1_error", "top5_error", "images"):
        assert last[kind] == results[kind] == found[kind]


@pytest.mark.gpu
def test_a_run_on_a_gpu_is_resumed_bit_for_bit(
    on_a_gpu: tuple[Recipe, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = on_a_gpu
    _, last = sorted(out.glob("checkpoint-*"))
    shutil.copytree(out, tmp_path / "run", ignore=lambda *_: [last.name, "weights", "results.json"])
    run.train(recipe, tmp_path / "run", device="cuda", deterministic=True, resume=True)
    said = capsys.readouterr().err
    assert "continuing at iteration 10" in said
    assert "recording failed" not in said
    assert_same_run(tmp_path / "run", out)


@pytest.mark.gpu
def test_a_gpu_without_enough_memory_is_a_sentence(tmp_path: Path) -> None:
    recipe = override(find("digits-resnet20"), ["batch.size=1024", "schedule.iterations=2"])
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        said = sentence_of(lambda: run.train(recipe, tmp_path / "run", device="cuda"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "digits-resnet20: the GPU's memory ran out: this run had taken 0." in said


def test_a_plateau_is_remembered_by_checkpoints(images: Path, tmp_path: Path) -> None:
    settings = ["schedule.plateau.patience=1", "schedule.plateau.least=100", "evaluate_every=1"]
    recipe = small_recipe("imagenet-resnet18", *settings)
    run.train(recipe, tmp_path / "run", data_dir=images, device="cpu")
    rates = [line["learning_rate"] for line in metrics_of(tmp_path / "run")]
    # No error is lower by 100 points: each evaluation after the first divides the rate, three times at most.
    assert rates == pytest.approx([0.02, 0.02, 0.002, 0.0002] + [0.00002] * 4)
    last = sorted((tmp_path / "run").glob("checkpoint-*"))[-1]
    assert load_checkpoint(last)[1].plateaus == 3


def test_a_run_that_follows_plateaus_is_resumed_bit_for_bit(images: Path, tmp_path: Path) -> None:
    """What was waited for, too: of two evaluations one is before the checkpoint, and one after it."""
    settings = ["schedule.plateau.patience=2", "schedule.plateau.least=100", "evaluate_every=1"]
    recipe = small_recipe("imagenet-resnet18", *settings, "checkpoint_every=6")
    out, again = tmp_path / "run", tmp_path / "again"
    run.train(recipe, out, data_dir=images, device="cpu")
    rates = [line["learning_rate"] for line in metrics_of(out)]
    assert rates == pytest.approx([0.02] * 3 + [0.002] * 2 + [0.0002] * 2 + [0.00002])
    _, last = sorted(out.glob("checkpoint-*"))
    shutil.copytree(out, again, ignore=lambda *_: [last.name, "weights", "results.json"])
    (again / "metrics.jsonl").write_text("".join((out / "metrics.jsonl").read_text().splitlines(True)[:6]))
    run.train(recipe, again, device="cpu", resume=True)
    assert_same_run(again, out)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_computes_in_its_recipes_precision(precision: str, images: Path, tmp_path: Path) -> None:
    recipe = small_recipe("imagenet-resnet18", f"precision={precision}", "schedule.iterations=1")
    with precisions_of_convolutions() as found:
        run.train(recipe, tmp_path / "run", data_dir=images, device="cpu")
    # BN's averages and what is told of it are in float32, whatever it learns in.
    assert found == {(True, getattr(torch, precision)), (True, torch.float32), (False, torch.float32)}


def test_epochs_become_iterations(images: Path, tmp_path: Path) -> None:
    recipe = small_recipe("imagenet-resnet18", "schedule.epochs=2")
    results = run.train(recipe, tmp_path / "run", data_dir=images, device="cpu")
    # Two epochs of 13 images are 26, four batches of 8 rounded up.
    assert results["iterations"] == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["finetune", "--data-dir", "{images}"], "starts from trained weights; name them with --weights"),
        (["finetune", "--weights", "{images}", "--data-dir", "{images}"], "holds no classifier"),
        (["finetune", "--data-dir", "{images}", "--set", "data.std=true"], "leave data.std out"),
        (
            ["imagenet-resnet18"],
            "name the folder that holds train/ and val/, or the classes, with --data-dir",
        ),
        (["imagenet-resnet18", "--data-dir", "/nonexistent"], "there is no folder /nonexistent"),
        (["imagenet-resnet18", "--data-dir", "{images}/val"], "has no folder train"),
        (
            # The authors' pooling rounds sizes up: no map is ever empty with it.
            [
                *("imagenet-vgg16", "--data-dir", "{images}"),
                *set_options([*SMALL, "data.folder.size=8", "model.pool=torchvision"]),
            ],
            "too small for",
        ),
        (
            [
                "imagenet-resnet18",
                *set_options(["data.folder.size=300", "data.folder.shorter_side=[256,480]"]),
            ],
            "hold a crop of size 300",
        ),
        (["imagenet-resnet18", "--set", "data.folder=null"], "data.folder is for the dataset folder"),
        # The dataset is read first; digits stand in for CIFAR-10.
        (
            [*("cifar10-resnet20", "--set", "schedule.plateau.patience=3"), "--dataset", "digits"],
            "follows the validation error",
        ),
    ],
)
def test_wrong_input_of_train(
    arguments: list[str], sentence: str, images: Path, tmp_path: Path, refused: Refused
) -> None:
    filled = [argument.replace("{images}", str(images)) for argument in arguments]
    assert sentence in refused("train", *filled, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_shortened_resnet20_reaches_17_percent(published_cifar10: Path, tmp_path: Path) -> None:
    recipe = override(RECIPES["cifar10-resnet20"], ["schedule.iterations=4000"])
    results = run.train(recipe, tmp_path / "run", data_dir=published_cifar10)
    assert results["test"]["top1_error"] < 17


def test_the_line_in_training_shows_what_the_log_has(tmp_path: Path, shown: Shown) -> None:
    settings = set_options(["schedule.iterations=20", "data.validation=300"])
    told = shown("train", *TINY, *settings, "--out", tmp_path / "run").err
    last = metrics_of(tmp_path / "run")[-1]
    training, validation = last["train"]["top1_error"], last["validation"]["top1_error"]
    assert training != validation
    assert f"errors: training {training:.2f} %, validation {validation:.2f} %" in told
