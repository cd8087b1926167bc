"""Weights of other libraries against those libraries' own outputs."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from conftest import assert_same_outputs, noise, randomise, sentence_of
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from residual import build_model
from residual.models.foreign import outline, own_names, visible_options
from residual.models.weights import export_weights, import_weights, load_weights

CIFAR_NORM: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class PublicBlock(nn.Module):
    """The public architecture, written from its description and sharing no code with ours."""

    def __init__(self, inputs: int, outputs: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.pad = 0 if stride == 1 else outputs // 4
        if projection and stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if hasattr(self, "shortcut"):
            return F.relu(y + self.shortcut(x))
        if self.pad:
            zeros = x.new_zeros(len(x), self.pad, (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2)
            x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
        return F.relu(y + x)


class PublicResNet(nn.Module):
    def __init__(self, n: int, classes: int = 10, projection: bool = False, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (inputs, outputs, stride) in enumerate([(16, 16, 1), (16, 32, 2), (32, 64, 2)], 1):
            blocks = [PublicBlock(inputs, outputs, stride, projection)]
            blocks += [PublicBlock(outputs, outputs, 1, projection) for _ in range(n - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.avg_pool2d(x, x.shape[-1]).flatten(1))


def public(seed: int = 0, n: int = 3, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return randomise(PublicResNet(n, **options), seed)


def test_a_public_cifar_resnet(tmp_path: Path) -> None:
    theirs = public()
    state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "resnet20.th")
    weights = import_weights(tmp_path / "resnet20.th", "cifar_resnet20", tmp_path / "out", **CIFAR_NORM)
    assert_same_outputs(weights.model, theirs, noise(side=32))
    assert_same_outputs(load_weights(tmp_path / "out").model, theirs, noise(side=32))
    assert weights.config["model"] == {
        "name": "cifar_resnet20",
        "options": {"in_channels": 3, "shortcut": "A"},
        "classes": 10,
    }
    assert weights.classes == tuple("0123456789")
    assert weights.config["preprocessing"]["source"] == "given"
    assert weights.config["preprocessing"]["mean"] == list(CIFAR_NORM["mean"])


@pytest.mark.parametrize("head", ["linear", "fc"])
def test_a_public_cifar_resnet_with_projections(tmp_path: Path, head: str) -> None:
    theirs = public(classes=7, projection=True, channels=1)
    state = {name.replace("linear", head): tensor for name, tensor in theirs.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    weights = import_weights(
        tmp_path / "a.safetensors", "cifar_resnet20", tmp_path / "out", mean=[0.5], std=[1], classes="abcdefg"
    )
    assert_same_outputs(weights.model, theirs, noise(1, 32))
    assert weights.config["model"]["options"] == {"in_channels": 1, "shortcut": "B"}
    assert weights.classes == tuple("abcdefg")


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
def test_the_tensors_show_the_shortcut(tmp_path: Path, shortcut: str) -> None:
    file = tmp_path / "state.safetensors"
    save_file(build_model("cifar_resnet8", shortcut=shortcut).state_dict(), file)
    weights = import_weights(file, "cifar_resnet8", tmp_path / "out", **CIFAR_NORM)
    assert weights.config["model"]["options"]["shortcut"] == shortcut
    other = "C" if shortcut == "A" else "A"
    message = sentence_of(lambda: import_weights(file, "cifar_resnet8", tmp_path / "2", shortcut=other))
    assert message == f"{file} has shortcuts of option {shortcut}, not {other}; leave it out"
    for name in ("resnet18", "resnet34", "resnet50"):
        network = outline(name, shortcut=shortcut, classes=5, in_channels=2)
        options = visible_options(network.state_dict(), name, network)
        assert options == {"in_channels": 2, "classes": 5, "shortcut": shortcut}


def test_the_name_decides_between_plain_and_option_a(tmp_path: Path) -> None:
    torch.save({"net": public().state_dict()}, tmp_path / "a.pt")
    plain = import_weights(tmp_path / "a.pt", "cifar_plain20", tmp_path / "plain", **CIFAR_NORM)
    residual = import_weights(tmp_path / "a.pt", "cifar_resnet20", tmp_path / "residual", **CIFAR_NORM)
    x = noise(side=32)
    assert not torch.allclose(plain.model(x), residual.model(x), atol=1e-2)
    torch.save(public(projection=True).state_dict(), tmp_path / "b.pt")
    message = sentence_of(
        lambda: import_weights(tmp_path / "b.pt", "cifar_plain20", tmp_path / "b", **CIFAR_NORM)
    )
    assert "unexpected: layer2.0.downsample.0.weight" in message


def test_old_files_lack_num_batches_tracked(tmp_path: Path) -> None:
    state = {k: v for k, v in public().state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    weights = import_weights(tmp_path / "old.pth", "cifar_resnet20", tmp_path / "out", **CIFAR_NORM)
    assert_same_outputs(weights.model, public(), noise(side=32))
    assert weights.model.bn1.num_batches_tracked == 0


def test_tensors_saved_on_a_gpu(tmp_path: Path) -> None:
    """Saved on the CPU, with the location in the pickle changed to what a GPU's tensors have there."""
    torch.save(public().state_dict(), tmp_path / "cpu.pth")
    with zipfile.ZipFile(tmp_path / "cpu.pth") as cpu, zipfile.ZipFile(tmp_path / "gpu.pth", "w") as gpu:
        for entry in cpu.infolist():
            content = cpu.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"X\x03\x00\x00\x00cpu" in content
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:7")
            gpu.writestr(entry, content)
    weights = import_weights(tmp_path / "gpu.pth", "cifar_resnet20", tmp_path / "out", **CIFAR_NORM)
    assert_same_outputs(weights.model, public(), noise(side=32))


@pytest.mark.parametrize("library", [torchvision.models.get_model, timm.create_model])
@pytest.mark.parametrize(("name", "variant"), [("resnet18", None), ("resnet50", "v1.5")])
def test_resnets_of_other_libraries(
    tmp_path: Path, library: Callable[..., nn.Module], name: str, variant: str | None
) -> None:
    torch.manual_seed(0)
    theirs = randomise(library(name, num_classes=11))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    weights = import_weights(tmp_path / "theirs.pth", name, tmp_path / "out", variant=variant)
    assert_same_outputs(weights.model, theirs, noise())
    config = weights.config["preprocessing"]
    assert config["source"] == "default of torchvision's weights"
    assert config["mean"] == [0.485, 0.456, 0.406]
    assert config["std"] == [0.229, 0.224, 0.225]
    assert load_weights(tmp_path / "out").config == weights.config


@pytest.mark.long
def test_timms_vgg_and_back_to_torchvisions(tmp_path: Path) -> None:
    """Half a gigabyte a file, so that both ways share one test; theirs is in half precision."""
    with torch.device("meta"):
        theirs = timm.create_model("vgg16", in_chans=1, num_classes=7).eval()
        back = torchvision.models.vgg16(num_classes=7).eval()
        back.features[0] = nn.Conv2d(1, 64, 3, padding=1)
    theirs.half().to_empty(device="cpu")
    # Random numbers that repeat with a prime period, so that no two rows agree, take no time.
    period = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0)).half()
    for parameter in theirs.parameters():
        count = parameter.numel()
        values = period.repeat(-(-count // len(period)))[:count].view_as(parameter)
        parameter.data.copy_(values).mul_((2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    weights = import_weights(
        tmp_path / "theirs.safetensors", "vgg16", tmp_path / "out", mean=[0.5], std=[0.2]
    )
    assert weights.config["model"] == {"name": "vgg16", "options": {"in_channels": 1}, "classes": 7}
    assert_same_outputs(weights.model, theirs.float(), noise(1))
    del theirs
    export_weights(weights, tmp_path / "back.safetensors")
    back.load_state_dict(load_file(tmp_path / "back.safetensors"), strict=True, assign=True)
    assert_same_outputs(weights.model, back, noise(1))


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_torchvisions_vggs_have_our_tensors(name: str) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name).state_dict()
    network = outline(name)
    ours = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert {k: v.shape for k, v in own_names(theirs, type(network)).items()} == ours


def test_the_variant_must_be_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = randomise(torchvision.models.resnet50(num_classes=5))
    file = tmp_path / "resnet50.safetensors"
    save_file(theirs.state_dict(), file)
    assert sentence_of(lambda: import_weights(file, "resnet50", tmp_path / "out")) == (
        "resnet50: weights do not show which variant they are for; say --variant v1.5 for those of "
        "torchvision and timm, --variant v1 for the authors' (whose own .caffemodel files need no option)"
    )
    assert "resnet18 has no option 'variant'" in sentence_of(
        lambda: import_weights(file, "resnet18", tmp_path / "out", variant="v1")
    )
    v1 = import_weights(file, "resnet50", tmp_path / "v1", variant="v1")
    assert v1.config["model"]["options"]["variant"] == "v1"
    with torch.no_grad():
        assert not torch.allclose(v1.model(noise()), theirs(noise()), rtol=0.05)


def test_weights_of_another_network_name_the_tensors(tmp_path: Path) -> None:
    file = tmp_path / "mobilenet.pth"
    with torch.device("meta"):
        theirs = torchvision.models.mobilenet_v2()
    torch.save(theirs.to_empty(device="cpu").state_dict(), file)
    message = sentence_of(lambda: import_weights(file, "resnet18", tmp_path / "out"))
    assert message.startswith(
        f"{file} does not fit the network (missing: conv1.weight, bn1.weight, bn1.bias and "
    )
    assert "unexpected: features.0.0.weight, " in message
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "give the mean and std that the network was trained with: public CIFAR-10 weights differ"),
        ({"mean": [0.5] * 3}, "give both the mean and the std"),
        ({"mean": [0.5], "std": [0.2]}, "mean has 1 numbers and the network takes 3 channels"),
        ({"mean": [0.5] * 3, "std": [0.2] * 4}, "std has 4 numbers and the network takes 3 channels"),
        ({"mean": [123.7] * 3, "std": [0.2] * 3}, "mean and std are in units of [0, 1]"),
        ({"mean": [0.5] * 3, "std": [0] * 3}, "mean and std are in units of [0, 1]"),
        ({"classes": "abc", **CIFAR_NORM}, "3 names are given for 10 classes"),
        ({"variant": "v1", **CIFAR_NORM}, "cifar_resnet20 has no option 'variant'"),
        ({"shortcut": "D", **CIFAR_NORM}, "shortcut is one of A, B, C"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    torch.save(public().state_dict(), tmp_path / "a.pth")
    message = sentence_of(
        lambda: import_weights(tmp_path / "a.pth", "cifar_resnet20", tmp_path / "out", **options)
    )
    assert expected in message
    assert not (tmp_path / "out").exists()


def test_no_default_mean_for_other_images(tmp_path: Path) -> None:
    save_file(build_model("resnet18", in_channels=1, classes=2).state_dict(), tmp_path / "a.safetensors")
    message = sentence_of(lambda: import_weights(tmp_path / "a.safetensors", "resnet18", tmp_path / "out"))
    assert message.startswith("the network takes 1 channels, for which there is no default")


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16"])
def test_torchvisions_weights_give_torchvisions_outputs(name: str) -> None:
    """The networks are torchvision's (bottlenecks in variant v1.5), by parameter names and in numbers."""
    theirs = getattr(torchvision.models, name)(num_classes=7).eval()
    with torch.device("meta"):
        ours = build_model(name, classes=7, **({"variant": "v1.5"} if name == "resnet50" else {})).eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    x = torch.randn(2, 3, 70, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
