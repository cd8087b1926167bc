"""A run that was stopped early, and the best weights of one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY, Refused, Shown, metrics_of, results_of, set_options, tensors_of
from PIL import Image
from safetensors.torch import load_file

import residual
from residual.models.weights import load_weights
from residual.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, call: object) -> Path:
    """A run of 60 iterations with a validation part, evaluated every ten, checkpoints after 50 and 60."""
    out = tmp_path_factory.mktemp("runs") / "run"
    # An image of each class is held out: the error is 0 before the end, and then cannot be lower.
    options = ["data.validation=0.007", "schedule.iterations=60", "schedule.drops=[]"]
    assert call("train", *TINY, *set_options(options), "--out", out) == 0  # type: ignore[operator]
    return out


@pytest.fixture
def stopped(complete: Path, tmp_path: Path) -> Path:
    """The same run, killed after the checkpoint of iteration 50."""
    out = shutil.copytree(complete, tmp_path / "stopped")
    for name in ("weights", "best"):
        shutil.rmtree(out / name)
    for name in ("results.json", "checkpoint-0000060.safetensors"):
        (out / name).unlink()
    return out


def test_earlier_weights_stay_until_there_are_later_ones(
    stopped: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    shown("finish", stopped)
    before = tensors_of(stopped)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("residual.run.classification.save_weights", full)
        assert "No space left" in refused("finish", stopped)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors_of(stopped).items())
    shown("finish", stopped)
    assert not list(stopped.glob(".new*"))


def used_by(run: Path, folder: Path) -> list[tuple[object, ...]]:
    """Return commands that use a run's weights on an image in a folder."""
    Image.new("L", (8, 8)).save(folder / "image.png")
    return [
        ("predict", run, folder / "image.png"),
        ("embed", run, folder / "image.png", "--out", folder / "features.npz"),
        ("export", run, "--torchvision", folder / "exported.pth"),
        ("analyze", "responses", run, "--images", 10),
        ("analyze", "signals", run, "--groups", 1),
    ]


def test_a_run_that_was_stopped_can_be_used(
    stopped: Path, complete: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    assert f"residual finish {stopped}" in refused("evaluate", stopped)
    printed = shown("finish", stopped)
    assert f"wrote {stopped / 'weights'}: iteration 50 of 60, not the end of the run" in printed.out
    stored = load_weights(stopped)
    found = stored.config["results"]
    assert (found["iterations"], found["of_iterations"], found["complete"]) == (50, 60, False)
    # The weights are the checkpoint's, and the BN statistics are averaged over it: not the moving ones.
    tensors, _ = load_checkpoint(stopped / "checkpoint-0000050.safetensors")
    mine = tensors_of(stopped)
    assert all(torch.equal(mine[n], tensors[f"model/{n}"]) for n in mine if n.endswith("weight"))
    assert not torch.equal(mine["bn1.running_mean"], tensors["model/bn1.running_mean"])
    tested = shown("evaluate", stopped, "--split", "train", "--json")
    assert f"{stopped} has the weights of iteration 50 of 60: the run is not complete" in tested.err
    for words in used_by(stopped, tmp_path):
        assert f"note: {stopped} has the weights of iteration 50 of 60" in shown(*words).err
    # The run has gone on: the weights are not its newest.
    newer = complete / "checkpoint-0000060.safetensors"
    shutil.copy(newer, stopped)
    told = shown("predict", stopped / "weights", tmp_path / "image.png").err
    assert f"its newest checkpoint is of iteration 60: residual finish {stopped} takes it" in told
    (stopped / newer.name).unlink()
    # No table takes it for a complete run, and it goes on to the same end.
    assert not (stopped / "results.json").exists()
    shown("train", "--resume", "--out", stopped)
    assert metrics_of(stopped) == metrics_of(complete)
    assert all(torch.equal(tensor, tensors_of(complete)[n]) for n, tensor in tensors_of(stopped).items())
    assert "is complete" in refused("finish", stopped)


def test_nothing_to_finish(tmp_path: Path, stopped: Path, refused: Refused) -> None:
    assert "holds no run to resume" in refused("finish", tmp_path / "none")
    for file in stopped.glob("checkpoint-*"):
        file.unlink()
    said = refused("finish", stopped)
    assert f"has no checkpoint yet; let it go on: residual train --resume --out {stopped}" in said


def test_a_detector_that_was_stopped_can_be_used(
    begun_detector: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    out = shutil.copytree(begun_detector, tmp_path / "run")
    shutil.rmtree(out / "weights")
    (out / "results.json").unlink()
    (out / "checkpoint-0000012.safetensors").unlink()
    begun = shutil.copytree(out, tmp_path / "be gun")
    for file in begun.glob("checkpoint-*"):
        file.unlink()
    assert f"let it go on: residual detect train --resume --out '{begun}'" in refused("finish", begun)
    assert "iteration 10 of 12" in shown("finish", out).out
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    told = shown("detect", "predict", out, tmp_path / "image.png").err
    assert f"note: {out} has the weights of iteration 10 of 12" in told
    assert residual.load_detector(out, device="cpu").classes == residual.load_detector(begun_detector).classes


def test_the_best_weights_are_kept_beside_and_are_not_the_result(complete: Path, shown: Shown) -> None:
    errors = {line["iteration"]: line["validation"]["top1_error"] for line in metrics_of(complete)}
    lowest = min(errors.values())
    first = next(iteration for iteration, error in errors.items() if error == lowest)
    best = load_weights(complete / "best").config["results"]
    assert (best["iterations"], best["validation"]["top1_error"]) == (first, lowest)
    assert best["chosen_by"] == "validation"
    assert results_of(complete)["validation"]["top1_error"] == errors[60]
    assert results_of(complete)["best_validation_top1_error"] == lowest
    # A run folder stands for its final weights.
    assert load_weights(complete).config["results"]["iterations"] == 60
    assert first < 60, "these weights are to be others than the final ones"
    theirs = load_file(complete / "best" / "model.safetensors")
    assert any(not torch.equal(tensor, theirs[name]) for name, tensor in tensors_of(complete).items())
    assert json.loads(shown("evaluate", complete / "best", "--json").out)["images"] == 359


def test_without_a_validation_part_none_is_the_best(tmp_path: Path, shown: Shown) -> None:
    shown("train", *TINY, "--set", "schedule.iterations=2", "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "best").exists()
