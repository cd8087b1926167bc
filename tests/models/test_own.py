"""A network in a file of the user's own: trained, loaded, and never run without having been asked for."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY, Refused, Shown, sentence_of, set_options, tensors_of

import residual
from residual.models import own
from residual.models.weights import load_weights

CODE = """
from pathlib import Path

from torch import nn

Path(__file__).with_name("ran").touch()


def build(classes, in_channels=3):
    layers = [nn.Conv2d(in_channels, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.BatchNorm1d(24), nn.Linear(24, classes))


def wrong(classes, in_channels=3):
    return nn.Flatten()


def none(classes, in_channels=3):
    return 7


def breaks(classes, in_channels=3):
    raise ValueError("no such layer")


def colours(classes):
    return nn.Flatten()
"""


@pytest.fixture(autouse=True)
def strangers_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trusted yet."""
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own, "_HERE", set())


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(CODE, encoding="utf-8")
    return file


def forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(own, "_HERE", set())


def train(mine: Path, function: str = "build") -> list[str]:
    short = ["schedule.iterations=12", f"model.name={mine}:{function}"]
    return ["train", *TINY, *set_options(short), "--device", "cpu"]


def test_trained_used_and_shared(
    mine: Path, tmp_path: Path, shown: Shown, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert f"training runs {mine}" in shown(*train(mine), "--out", run).err
    recipe = residual.recipe(run / "recipe.yaml")
    assert recipe.model.name == f"{mine}:build"
    assert recipe.model.code == own.fingerprint(f"{mine}:build")
    assert (run / "weights" / "network.py").read_bytes() == mine.read_bytes()
    tested = json.loads(shown("evaluate", run, "--json").out)
    results = json.loads((run / "results.json").read_text())
    assert (tested["images"], tested["loss"]) == (359, results["test"]["loss"])
    scores = residual.load(run, device="cpu").model(torch.zeros(2, 1, 8, 8))
    assert scores.shape == (2, 10)
    # Somebody else gets the folder: not a line of its code runs before he asks for it.
    theirs = shutil.copytree(run / "weights", tmp_path / "theirs", ignore=shutil.ignore_patterns("ran"))
    forget(tmp_path, monkeypatch)
    for command in (
        ("evaluate", theirs),
        ("predict", theirs, mine),
        ("export", theirs, "--onnx", tmp_path / "a.onnx"),
    ):
        assert f"residual trust {theirs}" in refused(*command)
    assert f"residual trust {theirs}" in sentence_of(lambda: residual.load(theirs))
    assert not (theirs / "ran").exists()
    assert "may run on this machine from now on" in shown("trust", theirs).out
    assert not (theirs / "ran").exists()
    assert torch.equal(residual.load(theirs, device="cpu").model(torch.zeros(2, 1, 8, 8)), scores)
    assert (theirs / "ran").exists()
    # What is trusted is these bytes and this function.
    (theirs / "network.py").write_text(CODE + "\n", encoding="utf-8")
    assert "residual trust" in sentence_of(lambda: load_weights(theirs))


def test_resumed_with_the_same_code_only(
    mine: Path, tmp_path: Path, shown: Shown, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shown(*train(mine), "--out", run)
    final = tensors_of(run)
    shutil.rmtree(run / "weights")
    (run / "results.json").unlink()
    forget(tmp_path, monkeypatch)
    assert "name the recipe as well if it may run" in refused("train", "--resume", "--out", run)
    shown(*train(mine), "--resume", "--out", run)
    assert all(torch.equal(tensor, final[name]) for name, tensor in tensors_of(run).items())
    (run / "results.json").unlink()
    mine.write_text(CODE + "\n# another\n", encoding="utf-8")
    assert "is not what the run began with" in refused("train", "--resume", "--out", run)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("wrong", "the network gives (1, 64) for 1 images, and scores (1, 10) are expected"),
        ("none", "gives a int, not a torch.nn.Module"),
        ("breaks", "cannot be built: ValueError: no such layer"),
        ("colours", "has no argument in_channels, and the images have 1"),
        ("missing", "has no function missing"),
    ],
)
def test_what_is_wrong_with_a_file(
    function: str, said: str, mine: Path, tmp_path: Path, refused: Refused
) -> None:
    assert said in refused(*train(mine, function), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_names_in_files_of_others_run_nothing(mine: Path, tmp_path: Path, refused: Refused) -> None:
    name = f"{mine}:build"
    assert "cannot be read" in refused(*train(tmp_path / "none.py"), "--out", tmp_path / "run")
    detector = ("detect", "train", "voc-finetune", "--set", f"detector.backbone.name={name}")
    assert "is no network of a detector" in refused(*detector, "--data-dir", tmp_path)
    torch.save({}, tmp_path / "a.pth")
    refused("import", tmp_path / "a.pth", "--model", name, "--out", tmp_path / "w")
    assert not (tmp_path / "ran").exists()
    said = refused(
        "train", "digits-resnet20", "--set", "model.name=cifar_resnet8:x", "--out", tmp_path / "run"
    )
    assert "there is no model" in said


def test_nothing_to_be_trusted(trained_on_images: Path, refused: Refused) -> None:
    assert "there is no code in it to be trusted" in refused("trust", trained_on_images)
