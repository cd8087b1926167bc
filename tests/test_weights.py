"""Weights folders, and weights of other libraries against those libraries' own outputs."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from residual import InputError, build_model
from residual.models.foreign import outline, own_names, visible_options
from residual.models.preprocessing import Preprocessing
from residual.models.weights import Weights, export_weights, import_weights, load_weights, save_weights

CIFAR_NORM: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Make every tensor matter: BN as it is initialised would hide a wrong order or a lost tensor."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def pictures(channels: int = 3, side: int = 64) -> Tensor:
    return torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(1))


def assert_same_outputs(mine: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 1e-3  # outputs that are all alike would show nothing
        torch.testing.assert_close(mine(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def message_of(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        action()
    return str(error.value)


# --- the weights folder ---------------------------------------------------------------------------------


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
    message = message_of(lambda: save_small(tmp_path / "weights", seed=1))
    assert message.startswith(f"{tmp_path}/weights exists already")
    assert {path: path.read_bytes() for path in (tmp_path / "weights").iterdir()} == before
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "dangling"):
        assert "exists already" in message_of(lambda name=name: save_small(tmp_path / name))


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = message_of(lambda: save_small(tmp_path / "weights"))
    assert message == f"{tmp_path}/weights cannot be written: No space left on device"
    weights = Weights(build_model("cifar_resnet8"), Preprocessing(torch.zeros(3)), (), {})
    assert "No space left" in message_of(lambda: export_weights(weights, tmp_path / "a.pth"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert "cannot be written" in message_of(lambda: save_small(tmp_path / "file" / "weights"))


def test_as_many_names_as_classes(tmp_path: Path) -> None:
    message = message_of(lambda: save_small(tmp_path / "weights", classes=("a", "b")))
    assert message == "2 names are given for 4 classes; name each class once"
    assert list(tmp_path.iterdir()) == []


def test_no_weights_there(tmp_path: Path) -> None:
    assert message_of(lambda: load_weights(tmp_path / "no")) == f"there is no folder {tmp_path}/no"
    assert message_of(lambda: load_weights(tmp_path)).startswith(f"{tmp_path} is no weights folder")
    (tmp_path / "config.json").write_text('{"architectures": ["ResNet"]}')
    assert "config.json is not of residual weights" in message_of(lambda: load_weights(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessing.safetensors"])
@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_truncated_files_are_named(tmp_path: Path, name: str, part: float) -> None:
    save_small(tmp_path / "weights")
    file = tmp_path / "weights" / name
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    assert message_of(lambda: load_weights(tmp_path / "weights")).startswith(f"{file} is damaged")
    file.unlink()
    assert name in message_of(lambda: load_weights(tmp_path / "weights"))


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
    assert expected in message_of(lambda: load_weights(tmp_path / "weights"))


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
    assert message_of(lambda: load_weights(tmp_path / "weights")) == (
        f"{file} does not fit the network (missing: layer3.0.bn1.weight, layer3.0.bn1.bias, "
        "layer3.0.bn1.running_mean and 2 more; unexpected: head.weight; of another shape: conv1.weight "
        "(16, 3, 3, 3) instead of (16, 1, 3, 3)); name the network that it is of"
    )


# --- public CIFAR-10 ResNets ----------------------------------------------------------------------------


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
    assert_same_outputs(weights.model, theirs, pictures(side=32))
    assert_same_outputs(load_weights(tmp_path / "out").model, theirs, pictures(side=32))
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
    assert_same_outputs(weights.model, theirs, pictures(1, 32))
    assert weights.config["model"]["options"] == {"in_channels": 1, "shortcut": "B"}
    assert weights.classes == tuple("abcdefg")


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
def test_the_tensors_show_the_shortcut(tmp_path: Path, shortcut: str) -> None:
    file = tmp_path / "state.safetensors"
    save_file(build_model("cifar_resnet8", shortcut=shortcut).state_dict(), file)
    weights = import_weights(file, "cifar_resnet8", tmp_path / "out", **CIFAR_NORM)
    assert weights.config["model"]["options"]["shortcut"] == shortcut
    other = "C" if shortcut == "A" else "A"
    message = message_of(lambda: import_weights(file, "cifar_resnet8", tmp_path / "2", shortcut=other))
    assert message == f"{file} has shortcuts of option {shortcut}, not {other}; leave it out"
    for name in ("resnet18", "resnet34", "resnet50"):
        network = outline(name, shortcut=shortcut, classes=5, in_channels=2)
        options = visible_options(network.state_dict(), name, network)
        assert options == {"in_channels": 2, "classes": 5, "shortcut": shortcut}


def test_the_name_decides_between_plain_and_option_a(tmp_path: Path) -> None:
    torch.save({"net": public().state_dict()}, tmp_path / "a.pt")
    plain = import_weights(tmp_path / "a.pt", "cifar_plain20", tmp_path / "plain", **CIFAR_NORM)
    residual = import_weights(tmp_path / "a.pt", "cifar_resnet20", tmp_path / "residual", **CIFAR_NORM)
    x = pictures(side=32)
    assert not torch.allclose(plain.model(x), residual.model(x), atol=1e-2)
    torch.save(public(projection=True).state_dict(), tmp_path / "b.pt")
    message = message_of(
        lambda: import_weights(tmp_path / "b.pt", "cifar_plain20", tmp_path / "b", **CIFAR_NORM)
    )
    assert "unexpected: layer2.0.downsample.0.weight" in message


def test_old_files_lack_num_batches_tracked(tmp_path: Path) -> None:
    state = {k: v for k, v in public().state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    weights = import_weights(tmp_path / "old.pth", "cifar_resnet20", tmp_path / "out", **CIFAR_NORM)
    assert_same_outputs(weights.model, public(), pictures(side=32))
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
    assert_same_outputs(weights.model, public(), pictures(side=32))


# --- torchvision and timm -------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [torchvision.models.get_model, timm.create_model])
@pytest.mark.parametrize(("name", "variant"), [("resnet18", None), ("resnet50", "v1.5")])
def test_resnets_of_other_libraries(
    tmp_path: Path, library: Callable[..., nn.Module], name: str, variant: str | None
) -> None:
    torch.manual_seed(0)
    theirs = randomise(library(name, num_classes=11))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    weights = import_weights(tmp_path / "theirs.pth", name, tmp_path / "out", variant=variant)
    assert_same_outputs(weights.model, theirs, pictures())
    config = weights.config["preprocessing"]
    assert config["source"] == "default of torchvision's weights"
    assert config["mean"] == [0.485, 0.456, 0.406]
    assert config["std"] == [0.229, 0.224, 0.225]
    assert load_weights(tmp_path / "out").config == weights.config


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(("name", "options"), [("resnet18", {}), ("resnet50", {"variant": "v1.5"})])
def test_exports_load_into_torchvisions_networks(
    tmp_path: Path, name: str, options: dict[str, str], suffix: str
) -> None:
    torch.manual_seed(0)
    model = randomise(build_model(name, **options, classes=11))
    file = tmp_path / f"new/{name}.{suffix}"
    model.to(memory_format=torch.channels_last)
    export_weights(Weights(model, Preprocessing(torch.zeros(3)), (), {}), file)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, num_classes=11).eval()
    state = torch.load(file, weights_only=True) if suffix == "pth" else load_file(file)
    assert type(state) is dict
    theirs.load_state_dict(state, strict=True, assign=True)
    assert_same_outputs(model, theirs, pictures())
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_timms_vgg_and_back_to_torchvisions(tmp_path: Path) -> None:
    """Half a gigabyte a file, so that both ways share one test; theirs is in half precision."""
    with torch.device("meta"):
        theirs = timm.create_model("vgg16", in_chans=1, num_classes=7).eval()
        back = torchvision.models.vgg16(num_classes=7).eval()
        back.features[0] = nn.Conv2d(1, 64, 3, padding=1)
    theirs.half().to_empty(device="cpu")
    # Random numbers that repeat with a prime period, so that no two rows agree, take no time.
    noise = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0)).half()
    for parameter in theirs.parameters():
        count = parameter.numel()
        values = noise.repeat(-(-count // len(noise)))[:count].view_as(parameter)
        parameter.data.copy_(values).mul_((2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    weights = import_weights(
        tmp_path / "theirs.safetensors", "vgg16", tmp_path / "out", mean=[0.5], std=[0.2]
    )
    assert weights.config["model"] == {"name": "vgg16", "options": {"in_channels": 1}, "classes": 7}
    assert_same_outputs(weights.model, theirs.float(), pictures(1))
    del theirs
    export_weights(weights, tmp_path / "back.safetensors")
    back.load_state_dict(load_file(tmp_path / "back.safetensors"), strict=True, assign=True)
    assert_same_outputs(weights.model, back, pictures(1))


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
    assert message_of(lambda: import_weights(file, "resnet50", tmp_path / "out")) == (
        "resnet50: weights do not show which variant they are for; say --variant v1.5 for those of "
        "torchvision and timm, --variant v1 for the authors' (Caffe)"
    )
    assert "resnet18 has no option 'variant'" in message_of(
        lambda: import_weights(file, "resnet18", tmp_path / "out", variant="v1")
    )
    v1 = import_weights(file, "resnet50", tmp_path / "v1", variant="v1")
    assert v1.config["model"]["options"]["variant"] == "v1"
    with torch.no_grad():
        assert not torch.allclose(v1.model(pictures()), theirs(pictures()), rtol=0.05)


def test_weights_of_another_network_name_the_tensors(tmp_path: Path) -> None:
    file = tmp_path / "mobilenet.pth"
    with torch.device("meta"):
        theirs = torchvision.models.mobilenet_v2()
    torch.save(theirs.to_empty(device="cpu").state_dict(), file)
    message = message_of(lambda: import_weights(file, "resnet18", tmp_path / "out"))
    assert message.startswith(
        f"{file} does not fit the network (missing: conv1.weight, bn1.weight, bn1.bias and "
    )
    assert "unexpected: features.0.0.weight, " in message
    assert list(tmp_path.iterdir()) == [file]


# --- what is refused ------------------------------------------------------------------------------------


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_pickled_code_is_not_executed(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    saved = {"state_dict": public().state_dict(), "args": Malicious(target)}
    torch.save(saved, tmp_path / "new.pth")
    torch.save(saved, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Malicious(target), protocol=2))
    for name in ("new.pth", "old.pth", "bare.pt"):
        file = tmp_path / name
        message = message_of(lambda file=file: import_weights(file, "cifar_resnet20", tmp_path / "out"))
        assert message.startswith(f"{file} holds pickled code (posix.mkdir), which is never executed here")
        assert not target.exists()
    # The files are what they should be: read carelessly, they do execute.
    pickle.loads((tmp_path / "bare.pt").read_bytes())
    assert target.exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.99])
def test_truncated_foreign_files(tmp_path: Path, suffix: str, part: float) -> None:
    file = tmp_path / f"a.{suffix}"
    if suffix == "pth":
        torch.save(public().state_dict(), file)
    else:
        save_file(public().state_dict(), file)
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    message = message_of(lambda: import_weights(file, "cifar_resnet20", tmp_path / "out"))
    assert message.startswith(f"{file} is damaged or no ")
    assert "\n" not in message


def test_files_without_a_state_dict(tmp_path: Path) -> None:
    def message(file: Path) -> str:
        return message_of(lambda: import_weights(file, "cifar_resnet20", tmp_path / "out"))

    assert message(tmp_path / "no.pth") == f"there is no file {tmp_path}/no.pth"
    for content, expected in [
        ({"epoch": 3, "lr": 0.1}, "holds no state dict, only epoch, lr; save"),
        ({}, "holds no state dict; save"),
        ({"state_dict": {}}, "holds no state dict; save"),
        (torch.zeros(3), "holds no state dict; save"),
    ]:
        file = tmp_path / "a.pth"
        torch.save(content, file)
        assert message(file).startswith(f"{file} {expected}")


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
    message = message_of(
        lambda: import_weights(tmp_path / "a.pth", "cifar_resnet20", tmp_path / "out", **options)
    )
    assert expected in message
    assert not (tmp_path / "out").exists()


def test_no_default_mean_for_other_pictures(tmp_path: Path) -> None:
    save_file(build_model("resnet18", in_channels=1, classes=2).state_dict(), tmp_path / "a.safetensors")
    message = message_of(lambda: import_weights(tmp_path / "a.safetensors", "resnet18", tmp_path / "out"))
    assert message.startswith("the network takes 1 channels, for which there is no default")


def test_exports_and_imports_overwrite_nothing(tmp_path: Path) -> None:
    torch.save(public().state_dict(), tmp_path / "a.pth")
    before = (tmp_path / "a.pth").read_bytes()

    def imported() -> Weights:
        return import_weights(tmp_path / "a.pth", "cifar_resnet20", tmp_path / "out", **CIFAR_NORM)

    weights = imported()
    (tmp_path / "a.pth").rename(tmp_path / "b.pth")
    assert "out exists already" in message_of(imported)  # before anything is read
    (tmp_path / "b.pth").rename(tmp_path / "a.pth")
    assert "a.pth exists already" in message_of(lambda: export_weights(weights, tmp_path / "a.pth"))
    assert (tmp_path / "a.pth").read_bytes() == before
    assert "ends in .safetensors, .pth or .pt" in message_of(
        lambda: export_weights(weights, tmp_path / "a.onnx")
    )
    assert {path.name for path in tmp_path.iterdir()} == {"a.pth", "out"}
