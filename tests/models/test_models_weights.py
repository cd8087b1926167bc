"""Weights folders: bit for bit, whole or not at all, and what is wrong with one."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from conftest import assert_same_outputs, noise, randomise, sentence_of, shrink_rivals
from safetensors.torch import load_file, save_file
from torch import nn

from residual import build_model
from residual.detection.weights import read_detector
from residual.localization.weights import read_localizer
from residual.models import SINGLE
from residual.models.preprocessing import Preprocessing
from residual.models.weights import Weights, export_weights, import_weights, load_weights, save_weights


def save_small(
    folder: Path, *, per_pixel: bool = True, seed: int = 0, **changes: Any
) -> tuple[nn.Module, Preprocessing]:
    torch.manual_seed(seed)
    options = {"in_channels": 1, "shortcut": "B"}
    model = randomise(build_model("cifar_resnet8", classes=4, **options), seed)
    preprocessing = Preprocessing(torch.rand(1, 8, 8) if per_pixel else torch.rand(1), torch.rand(1))
    arguments: dict[str, Any] = {
        "name": "cifar_resnet8",
        "options": options,
        "preprocessing": preprocessing,
        "classes": ("null", "eins", "zwei", "drei"),
        "recipe": {"name": "a recipe"},
        "results": {"test": {"top1_error": 1.5}},
    }
    save_weights(folder, model.to(memory_format=torch.channels_last), **arguments | changes)
    return model, preprocessing


@pytest.mark.parametrize("per_pixel", [True, False])
def test_a_round_trip_is_bit_exact(tmp_path: Path, per_pixel: bool) -> None:
    folder = tmp_path / "new" / "weights"
    model, preprocessing = save_small(folder, per_pixel=per_pixel)
    before = torch.get_rng_state()
    weights = load_weights(folder)
    assert torch.equal(torch.get_rng_state(), before)
    assert not weights.model.training
    for saved, loaded in ((model, weights.model), (preprocessing, weights.preprocessing)):
        state = loaded.state_dict()
        assert state.keys() == saved.state_dict().keys()
        for name, tensor in saved.state_dict().items():
            assert state[name].dtype == tensor.dtype
            assert torch.equal(state[name], tensor), name
    assert weights.preprocessing.per_pixel == per_pixel
    assert weights.classes == ("null", "eins", "zwei", "drei")
    assert weights.config["recipe"] == {"name": "a recipe"}
    assert weights.config["results"] == {"test": {"top1_error": 1.5}}
    assert weights.config["model"]["options"] == {"in_channels": 1, "shortcut": "B"}
    assert weights.config["preprocessing"]["size"] == ([1, 8, 8] if per_pixel else None)
    files = {"config.json", "model.safetensors"} | ({"preprocessing.safetensors"} if per_pixel else set())
    assert {path.name for path in folder.iterdir()} == files
    assert [path.name for path in folder.parent.iterdir()] == ["weights"]


def test_a_run_folder_gives_its_weights(tmp_path: Path) -> None:
    model, _ = save_small(tmp_path / "run" / "weights")
    (tmp_path / "run" / "recipe.yaml").touch()
    assert torch.equal(load_weights(tmp_path / "run").model.linear.weight, model.linear.weight)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    save_small(tmp_path / "weights")
    before = {path: path.read_bytes() for path in (tmp_path / "weights").iterdir()}
    message = sentence_of(lambda: save_small(tmp_path / "weights", seed=1))
    assert message.startswith(f"{tmp_path}/weights exists already")
    assert {path: path.read_bytes() for path in (tmp_path / "weights").iterdir()} == before
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "dangling"):
        assert "exists already" in sentence_of(lambda name=name: save_small(tmp_path / name))


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = sentence_of(lambda: save_small(tmp_path / "weights"))
    assert message == f"{tmp_path}/weights cannot be written: No space left on device"
    weights = Weights(build_model("cifar_resnet8"), Preprocessing(torch.zeros(3)), (), {})
    assert "No space left" in sentence_of(lambda: export_weights(weights, tmp_path / "a.pth"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert "cannot be written" in sentence_of(lambda: save_small(tmp_path / "file" / "weights"))


def test_as_many_names_as_classes(tmp_path: Path) -> None:
    message = sentence_of(lambda: save_small(tmp_path / "weights", classes=("a", "b")))
    assert message == "2 names are given for 4 classes; name each class once"
    message = sentence_of(lambda: save_small(tmp_path / "weights", classes=range(4)))
    assert message == "the name of a class is a text, not 0"
    # Accents apart or not: names would be the same when they are read.
    message = sentence_of(lambda: save_small(tmp_path / "weights", classes=("a", "b", "\u00e9", "e\u0301")))
    assert message == "two of the classes are called '\u00e9'; give each class a name of its own"
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    of_colours = Preprocessing(torch.rand(3))
    message = sentence_of(lambda: save_small(tmp_path / "weights", preprocessing=of_colours))
    assert message == "the preprocessing is for 3 channels and the network takes 1"
    message = sentence_of(lambda: save_small(tmp_path / "weights", options={"in_channels": 1}))
    assert message.startswith("cifar_resnet8 with the options {'in_channels': 1} is another network")
    assert list(tmp_path.iterdir()) == []


def test_no_weights_there(tmp_path: Path) -> None:
    assert sentence_of(lambda: load_weights(tmp_path / "no")) == f"there is no folder {tmp_path}/no"
    assert sentence_of(lambda: load_weights(tmp_path)).startswith(f"{tmp_path} holds no classifier")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "recipe.yaml").touch()
    said = sentence_of(lambda: load_weights(tmp_path))
    assert said.endswith(f"(it has no config.json); it holds {tmp_path}/b; name that one")
    for name in "acd":
        save_small(tmp_path / name)
    said = sentence_of(lambda: load_weights(tmp_path))
    assert said.endswith(f"it holds {tmp_path}/a and {tmp_path}/b and {tmp_path}/c; name one of them")
    (tmp_path / "config.json").write_text('{"architectures": ["ResNet"]}')
    assert "config.json is not of residual weights" in sentence_of(lambda: load_weights(tmp_path))


READERS = {"classifier": load_weights, "detector": read_detector, "localizer": read_localizer}
FORMATS = {
    "classifier": "residual weights",
    "detector": "residual detector",
    "localizer": "residual localizer",
}


@pytest.mark.parametrize(("held", "expected"), itertools.permutations(READERS, 2))
def test_a_folder_of_another_kind_is_named_with_what_it_is_for(
    held: str, expected: str, tmp_path: Path
) -> None:
    folder = tmp_path / "a run"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "config.json").write_text(json.dumps({"format": FORMATS[held]}))
    groups = {"classifier": "residual", "detector": "residual detect", "localizer": "residual locate"}
    how = f"use it with {groups[held]} evaluate or {groups[held]} predict"
    if held == "classifier":
        how = f"train a {expected} from it with: {groups[expected]} train RECIPE --weights '{folder}'"
    assert sentence_of(lambda: READERS[expected](folder)) == (
        f"{folder} holds a {held}, and a {expected} is expected; {how}"
    )


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessing.safetensors"])
@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_truncated_files_are_named(tmp_path: Path, name: str, part: float) -> None:
    save_small(tmp_path / "weights")
    file = tmp_path / "weights" / name
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    assert sentence_of(lambda: load_weights(tmp_path / "weights")).startswith(f"{file} is damaged")
    file.unlink()
    assert name in sentence_of(lambda: load_weights(tmp_path / "weights"))


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        (("version",), 2, "config.json has version 2 and this residual reads up to 1; update it"),
        (("model", "name"), "cifar_resnet9", "config.json: cifar_resnet9: a CIFAR network has 6n+2 layers"),
        (("model", "name"), "lenet5", "config.json: there is no model 'lenet5'"),
        (("model", "name"), "cifar_resnet14", "(missing: layer1.1.conv1.weight, "),
        (("model", "options", "width"), 2, "config.json: cifar_resnet8 has no option 'width'"),
        (("model", "classes"), 5, "config.json is damaged (4 names for a classifier of 5 classes)"),
        (("classes"), ["a"], "config.json is damaged (1 names for a classifier of 4 classes)"),
        (("preprocessing", "std"), [0.1, 0.1], "config.json is damaged (means of 1 and deviations of 2"),
        (("preprocessing", "size"), [1, 4, 4], "preprocessing.safetensors is damaged (a mean of (1, 8, 8)"),
        (("preprocessing", "mean"), "per-image", "config.json is damaged (preprocessing.mean"),
    ],
)
def test_a_config_that_does_not_fit(tmp_path: Path, keys: Any, value: object, expected: str) -> None:
    save_small(tmp_path / "weights")
    file = tmp_path / "weights" / "config.json"
    config = json.loads(file.read_text())
    *parents, last = [keys] if isinstance(keys, str) else keys
    part = config
    for parent in parents:
        part = part[parent]
    part[last] = value
    file.write_text(json.dumps(config))
    assert expected in sentence_of(lambda: load_weights(tmp_path / "weights"))


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save_small(tmp_path / "weights")
    file = tmp_path / "weights" / "model.safetensors"
    state = load_file(file)
    state["head.weight"] = state.pop("linear.weight")
    state["conv1.weight"] = torch.zeros(16, 3, 3, 3)
    for name in [name for name in state if name.startswith("layer3.0.bn1")]:
        del state[name]
    file.unlink()
    save_file(state, file)
    assert sentence_of(lambda: load_weights(tmp_path / "weights")) == (
        f"{file} does not fit the network (missing: layer3.0.bn1.weight, layer3.0.bn1.bias, "
        "layer3.0.bn1.running_mean and 2 more; unexpected: head.weight; of another shape: conv1.weight "
        "(16, 3, 3, 3) instead of (16, 1, 3, 3)); name the network that it is of"
    )


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(("name", "options"), [("resnet18", {}), ("resnet50", {"variant": "v1.5"})])
def test_exports_load_into_torchvisions_networks(
    tmp_path: Path, name: str, options: dict[str, str], suffix: str
) -> None:
    torch.manual_seed(0)
    model = randomise(build_model(name, **options, classes=11))
    file = tmp_path / f"{name}.{suffix}"
    model.to(memory_format=torch.channels_last)
    export_weights(Weights(model, Preprocessing(torch.zeros(3)), (), {}), file)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, num_classes=11).eval()
    state = torch.load(file, weights_only=True) if suffix == "pth" else load_file(file)
    assert type(state) is dict
    theirs.load_state_dict(state, strict=True, assign=True)
    assert_same_outputs(model, theirs, noise())
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("name", SINGLE)
def test_rivals_weights_go_out_and_come_in(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes and channels are seen in the tensors, whatever layers are called."""
    shrink_rivals(monkeypatch)
    torch.manual_seed(0)
    model = randomise(build_model(name, classes=7, in_channels=2)).eval()
    weights = Weights(model, Preprocessing(torch.rand(2)), tuple("abcdefg"), {})
    export_weights(weights, tmp_path / "out.pth")
    imported = import_weights(
        tmp_path / "out.pth", name, tmp_path / "in", mean=[0.4, 0.5], std=[0.2, 0.3], classes=list("abcdefg")
    )
    assert (imported.model.classes, imported.model.in_channels) == (7, 2)
    x = torch.randn(2, 2, 64, 64)
    with torch.no_grad():
        assert torch.equal(load_weights(tmp_path / "in").model(x), model(x))


def test_exports_and_imports_overwrite_nothing(tmp_path: Path) -> None:
    torch.save(build_model("cifar_resnet8").state_dict(), tmp_path / "a.pth")
    before = (tmp_path / "a.pth").read_bytes()

    def imported() -> Weights:
        return import_weights(
            tmp_path / "a.pth", "cifar_resnet8", tmp_path / "out", mean=[0.5] * 3, std=[0.2] * 3
        )

    weights = imported()
    (tmp_path / "a.pth").write_bytes(b"damaged")
    assert "out exists already" in sentence_of(imported)  # before anything is read
    (tmp_path / "a.pth").write_bytes(before)
    assert "a.pth exists already" in sentence_of(lambda: export_weights(weights, tmp_path / "a.pth"))
    assert (tmp_path / "a.pth").read_bytes() == before
    assert "ends in .safetensors, .pth or .pt" in sentence_of(
        lambda: export_weights(weights, tmp_path / "a.onnx")
    )
    assert {path.name for path in tmp_path.iterdir()} == {"a.pth", "out"}
