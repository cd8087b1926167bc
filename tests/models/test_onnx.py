"""ONNX Runtime gives the scores that PyTorch gives, for every network and every preprocessing."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import randomise, save_network, shrink_rivals
from torch import Tensor

from residual import InputError, build_model
from residual.models import imagenet, vgg
from residual.models.blocks import BasicBlock, BottleneckBlock
from residual.models.cifar import CifarNetwork
from residual.models.onnx import export_onnx
from residual.models.own import build_own
from residual.models.preprocessing import Preprocessing
from residual.models.weights import Weights, load_weights

runtime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.fixture
def digits(tmp_path: Path) -> Weights:
    classes = [f"digit {k}" for k in range(10)]
    return load_weights(
        save_network(tmp_path / "w", classes=classes, mean=torch.rand(1, 8, 8), std=torch.tensor([0.5]))
    )


def weights_of(name: str, preprocessing: Preprocessing, **options: Any) -> Weights:
    torch.manual_seed(0)
    model = randomise(build_model(name, classes=5, in_channels=len(preprocessing.mean), **options))
    about = {"name": name, "options": options, "classes": 5}
    return Weights(model, preprocessing, tuple("abcde"), {"model": about, "preprocessing": {}})


def assert_exported(weights: Weights, file: Path, shapes: Sequence[tuple[int, int, int]]) -> None:
    """Export a network, and hold ONNX Runtime's scores of images (n, h, w) against PyTorch's."""
    assert export_onnx(weights, file, (32, 37)) < 1e-4
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, len(i.shape)) for i in session.get_inputs()] == [("images", "tensor(uint8)", 4)]
    for n, height, width in shapes:
        images = torch.randint(256, (n, weights.model.in_channels, height, width), dtype=torch.uint8)
        (scores,) = session.run(["scores"], {"images": images.numpy()})
        with torch.inference_mode():
            expected = weights.model.score_map(weights.preprocessing(images)).mean(dim=(2, 3))
        torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=1e-4, atol=1e-4)


#: A user's own: a first layer that needs 11 x 11 pixels and more.
OWN = """
from torch import nn


class Mine(nn.Module):
    def __init__(self, classes, in_channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 4, 11, stride=4), nn.ReLU(), nn.MaxPool2d(3, 2))
        self.last = nn.Conv2d(4, classes, 1)

    def score_map(self, x):
        return self.last(self.body(x))

    def forward(self, x):
        return self.score_map(x).mean(dim=(2, 3))


def build(classes, in_channels=3):
    return Mine(classes, in_channels)


def without(classes, in_channels=3):
    return nn.Sequential(nn.Conv2d(in_channels, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def test_a_users_own_network_is_exported_at_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text(OWN)
    preprocessing = Preprocessing(torch.zeros(3))
    for function in ("build", "without"):
        name = f"{tmp_path / 'mine.py'}:{function}"
        model, about = build_own(name, 5), {"name": name, "options": {}, "classes": 5}
        weights = Weights(model, preprocessing, tuple("abcde"), {"model": about, "preprocessing": {}})
        file = tmp_path / f"{function}.onnx"
        if function == "without":
            with pytest.raises(InputError, match="the network has no method score_map, which this needs"):
                export_onnx(weights, file, (64, 73))
            continue
        with pytest.raises(InputError, match="cannot take images of 8 x 8 pixels"):
            export_onnx(weights, file)
        assert export_onnx(weights, file, (64, 73)) < 1e-4
        told = runtime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map["model"]
        assert json.loads(told)["name"] == "network.py:build"


def test_onnx_runtime_gives_the_same_scores_for_any_batch_and_size(digits: Weights, tmp_path: Path) -> None:
    file = tmp_path / "digits.onnx"
    assert_exported(digits, file, [(1, 8, 8), (5, 8, 8), (2, 19, 33)])
    metadata = runtime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["view"]) == {"crop": 32, "side": 37}
    assert json.loads(metadata["classes"]) == [f"digit {k}" for k in range(10)]
    assert json.loads(metadata["preprocessing"])["std"] == [0.5]
    assert json.loads(metadata["model"])["name"] == "cifar_resnet8"
    kinds = {node.op_type for node in onnx.load(file).graph.node}
    assert "BatchNormalization" not in kinds
    with pytest.raises(InputError, match="exists already"):
        export_onnx(digits, file, (8, 8))


@pytest.mark.long
@pytest.mark.parametrize("std", [None, torch.tensor([0.2, 0.3, 0.25])], ids=["no-std", "std"])
@pytest.mark.parametrize("mean", [torch.rand(3, 32, 32), torch.rand(3)], ids=["per-pixel", "per-channel"])
def test_every_preprocessing_is_in_the_graph(mean: Tensor, std: Tensor | None, tmp_path: Path) -> None:
    """A mean image fits at its own size, and is stretched to every other."""
    weights = weights_of("cifar_resnet8", Preprocessing(mean, std))
    assert_exported(weights, tmp_path / "a.onnx", [(1, 32, 32), (3, 32, 32), (2, 8, 21), (1, 40, 32)])


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("cifar_plain8", {}, None),
        ("cifar_resnet8", {"shortcut": "C"}, None),
        ("cifar_highway19", {}, None),
        ("cifar_nin", {}, None),
        ("cifar_maxout", {}, None),
        pytest.param("cifar_fitnet19", {}, None, marks=pytest.mark.slow),
        ("plain18", {}, None),
        ("resnet18", {"shortcut": "A"}, 64),
        ("resnet18", {"shortcut": "B"}, None),
        ("resnet50", {"variant": "v1.5"}, 64),
        ("resnet18", {"pool": "caffe"}, None),
        pytest.param("googlenet", {}, None, marks=pytest.mark.slow),
        pytest.param("bn_inception", {}, None, marks=pytest.mark.slow),
        pytest.param("prelu_net", {}, None, marks=pytest.mark.slow),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value,
)
def test_every_family_is_exported(
    name: str, options: dict[str, Any], size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_rivals(monkeypatch)
    # Not fewer than the stem's 64, to which option A adds.
    monkeypatch.setattr(imagenet, "WIDTHS", (64, 72, 80, 96))
    for depth, block in ((18, BasicBlock), (50, BottleneckBlock)):
        monkeypatch.setitem(imagenet.TABLE_1, depth, (block, (2, 1, 1, 1)))
    mean = torch.rand(3, size, size) if size else torch.rand(3)
    assert_exported(weights_of(name, Preprocessing(mean), **options), tmp_path / "a.onnx", [(2, 64, 75)])


@pytest.mark.long
def test_vgg_is_exported_fully_convolutionally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its half a gigabyte of fully connected layers is left out: narrow ones are as good a test."""
    monkeypatch.setattr(vgg, "FILTERS", (8, 8, 16, 16, 16))
    monkeypatch.setattr(vgg, "UNITS", 16)
    torch.manual_seed(0)
    model = vgg.VGG(16, classes=5)
    about = {"model": {"name": "vgg16"}, "preprocessing": {}}
    weights = Weights(model.eval(), Preprocessing(torch.rand(3, 224, 224)), tuple("abcde"), about)
    assert_exported(weights, tmp_path / "a.onnx", [(1, 224, 256)])


def test_onnx_of_wrong_names_and_missing_packages(
    digits: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"ends in \.onnx"):
        export_onnx(digits, tmp_path / "digits.pb", (8, 8))
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match="needs the package onnxruntime: pip install onnx"):
        export_onnx(digits, tmp_path / "digits.onnx", (8, 8))


def test_what_onnx_runtime_cannot_run_is_a_sentence(
    digits: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Program:
        model = SimpleNamespace(metadata_props={})

        def save(self, file: Path) -> None:
            file.write_bytes(b"no network")  # as one with operators that it has not

    monkeypatch.setattr("residual.models.onnx._export", lambda *_: Program())
    with pytest.raises(
        InputError, match=r"^ONNX Runtime cannot run the exported network: .*; nothing was writ"
    ):
        export_onnx(digits, tmp_path / "digits.onnx", (8, 8))
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


class Branching(CifarNetwork):
    """What it computes depends on the values in a way that no graph has."""

    def score_map(self, x: Tensor) -> Tensor:
        return super().score_map(x if x.sum() > 0 else -x)


def test_a_network_that_cannot_be_exported_leaves_nothing_behind(digits: Weights, tmp_path: Path) -> None:
    weights = Weights(Branching(1, in_channels=1), digits.preprocessing, digits.classes, digits.config)
    with pytest.raises(InputError, match="cifar_resnet8 cannot be exported to ONNX"):
        export_onnx(weights, tmp_path / "digits.onnx", (8, 8))
    assert not list(tmp_path.glob("*.onnx"))
    assert not list(tmp_path.glob(".*onnx"))
