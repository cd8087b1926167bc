"""Networks made ready for use compute what they computed before, and ONNX Runtime does too."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from residual import InputError, build_model
from residual.models import Classifier
from residual.models.inference import fold_batchnorm, for_inference
from residual.models.onnx import export_onnx
from residual.models.preprocessing import Preprocessing
from residual.models.weights import Weights, load_weights, save_weights


def trained(name: str, **options: object) -> Classifier:
    """A network whose BN statistics are not those of a new one, and so could be folded wrongly."""
    torch.manual_seed(0)
    model = build_model(name, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias):
                nn.init.normal_(values, std=0.1)
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.7, 1.3)
    return model


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_resnet8", {}),
        ("cifar_resnet8", {"shortcut": "C"}),
        ("cifar_plain8", {}),
        ("resnet18", {"classes": 10}),
        ("resnet50", {"classes": 10}),
        ("plain18", {"classes": 10}),
    ],
)
@torch.inference_mode()
def test_folding_keeps_the_function(name: str, options: dict[str, object]) -> None:
    model = trained(name, **options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = for_inference(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    x = torch.randn(2, 3, 64, 64)
    for ours, theirs in ((folded(x), model(x)), (folded.score_map(x), model.score_map(x))):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_folding_a_network_without_bn() -> None:
    model = build_model("cifar_resnet8")
    once = fold_batchnorm(model)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(fold_batchnorm(once)(x), once(x))


# ONNX


@pytest.fixture
def digits(tmp_path: Path) -> Weights:
    save_weights(
        tmp_path / "w",
        trained("cifar_resnet8", in_channels=1),
        name="cifar_resnet8",
        options={"in_channels": 1},
        preprocessing=Preprocessing(torch.rand(1, 8, 8), torch.tensor([0.5])),
        classes=[f"digit {k}" for k in range(10)],
    )
    return load_weights(tmp_path / "w")


def test_onnx_runtime_gives_the_same_scores_for_any_batch_and_size(digits: Weights, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = tmp_path / "new" / "digits.onnx"
    assert export_onnx(digits, file) < 1e-4
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, len(i.shape)) for i in session.get_inputs()] == [("images", "tensor(uint8)", 4)]
    for shape in ((1, 1, 8, 8), (5, 1, 8, 8), (2, 1, 19, 33)):
        images = torch.randint(256, shape, dtype=torch.uint8)
        (scores,) = session.run(["scores"], {"images": images.numpy()})
        with torch.inference_mode():
            expected = digits.model(digits.preprocessing(images))
        torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=1e-4, atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == [f"digit {k}" for k in range(10)]
    assert json.loads(metadata["preprocessing"])["std"] == [0.5]

    import onnx

    kinds = {node.op_type for node in onnx.load(file).graph.node}
    assert "BatchNormalization" not in kinds
    with pytest.raises(InputError, match="exists already"):
        export_onnx(digits, file)


def test_onnx_of_wrong_names_and_missing_packages(
    digits: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"ends in \.onnx"):
        export_onnx(digits, tmp_path / "digits.pb")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match="needs the package onnxruntime: pip install 'residual"):
        export_onnx(digits, tmp_path / "digits.onnx")


def test_a_network_that_cannot_be_exported_leaves_nothing_behind(digits: Weights, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    class Branching(type(digits.model)):  # type: ignore[misc]
        def score_map(self, x: torch.Tensor) -> torch.Tensor:
            return super().score_map(x if x.sum() > 0 else -x)

    digits.model.__class__ = Branching
    with pytest.raises(InputError, match="cifar_resnet8 cannot be exported to ONNX"):
        export_onnx(digits, tmp_path / "digits.onnx")
    assert not list(tmp_path.glob("*.onnx"))
    assert not list(tmp_path.glob(".*onnx"))
