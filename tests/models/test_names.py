"""Weights by name: torchvision's and CIFAR-10's, from a server here, wherever a folder is taken."""

import functools
import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from conftest import (
    BEGUN,
    Refused,
    Shown,
    assert_same_outputs,
    noise,
    randomise,
    sentence_of,
    set_options,
    smooth_image,
)
from servers import FileServer, serving

import residual
from residual import build_model
from residual.class_names import imagenet_classes
from residual.models import imagenet, names
from residual.models.blocks import BottleneckBlock
from residual.models.names import cached, check, is_name
from residual.models.published import PublishedWeights, catalogue
from residual.models.weights import load_weights


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serve what the published files would be if ResNets were small."""
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(imagenet, "WIDTHS", (4, 4, 8, 8))
    monkeypatch.setitem(imagenet.TABLE_1, 50, (BottleneckBlock, (1, 1, 1, 1)))
    with serving() as server:
        known = dict(catalogue())
        for name in ("torchvision:resnet50", "torchvision:resnet50.v2", "cifar:resnet20"):
            known[name] = served(server, known[name])
        monkeypatch.setattr(names, "catalogue", lambda: known)
        yield server


def served(server: FileServer, weights: PublishedWeights) -> PublishedWeights:
    """Serve a file of the form that such weights have, under a name with its checksum."""
    variant = {"variant": "v1.5"} if weights.network == "resnet50" else {}
    content = io.BytesIO()
    state = randomise(
        build_model(weights.network, classes=len(weights.about["classes"]), **variant)
    ).state_dict()
    if weights.network == "resnet50":
        torch.save(state, content)
    else:
        wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"state_dict": wrapped, "best_prec1": 91.7}, content, _use_new_zipfile_serialization=False)
    checksum = hashlib.sha256(content.getvalue()).hexdigest()[:8]
    path = f"/{weights.name.partition(':')[2]}-{checksum}.pth"
    server.files[path] = content.getvalue()
    return replace(weights, file=replace(weights.file, url=server.address + path, checksum=checksum))


def everything(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


# --- what is known ---


def test_what_a_killed_process_left_is_not_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path))
    origin = json.dumps({"origin": {"name": "cifar:resnet20"}})
    folder = tmp_path / "weights"
    halves = (".cifar-resnet32.7.new", ".torchvision-resnet50.7.new.v2")
    parts = dict.fromkeys(halves, origin[:9])
    for name, content in ({"cifar-resnet20": origin, "mine": '{"origin": null}'} | parts).items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(content)
    assert cached() == {"cifar:resnet20": folder / "cifar-resnet20"}
    # ... and goes when it is begun anew.
    names._made_once("torchvision-resnet50.v2", Path.mkdir)
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        *("cifar-resnet20", "mine", "torchvision-resnet50.v2", halves[0]),
    }


def test_what_is_known_without_asking() -> None:
    known = catalogue()
    assert len(known) == 16
    fifty = known["torchvision:resnet50"]
    assert fifty.file.url == "https://download.pytorch.org/models/resnet50-0676ba61.pth"
    assert (fifty.file.algorithm, fifty.file.checksum) == ("sha256", "0676ba61")
    assert (fifty.network, fifty.parameters) == ("resnet50", 25_557_032)
    assert fifty.about["variant"] == "v1.5"
    assert fifty.about["view"] == (224, 256)
    assert fifty.about["classes"] == [name for _, name in imagenet_classes()]
    assert (fifty.data, fifty.errors) == ("ImageNet", (23.87, 7.14))
    assert known["torchvision:resnet50.v2"].about["view"] == (224, 232)
    assert known["torchvision:resnet18"].about["variant"] is None
    assert known["torchvision:vgg16"].file.name == "vgg16-397923af.pth"
    assert known["torchvision:googlenet"].parameters == 6_624_904
    small = known["cifar:resnet110"]
    assert small.file.url.startswith("https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/")
    assert small.file.url.endswith("/pretrained_models/resnet110-1d1ed7c2.th")
    assert (small.network, small.parameters, small.errors) == ("cifar_resnet110", 1_727_962, (6.32, None))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("torchvision:resnet50", True),
        ("hf:somebody/network", True),
        ("weights/resnet50", False),
        ("resnet50", False),
        ("keras:resnet50", False),
        ("C:\\weights", False),
    ],
)
def test_what_a_name_looks_like(given: str, expected: bool) -> None:
    assert is_name(given) == is_name(Path(given)) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            "resnet50",
            "published weights are torchvision:resnet50 or torchvision:resnet50.v2",
        ),
        ("cifar_resnet20", "there is no folder cifar_resnet20; published weights are cifar:resnet20"),
        ("weights/resnet50", "there is no folder weights/resnet50"),
        ("nonsense", "there is no folder nonsense; residual weights lists published ones"),
        ("keras:resnet50", "names of weights begin with torchvision:, timm:, hf:, cifar:"),
        (
            "torchvision:resnet51",
            "no weights 'torchvision:resnet51'; did you mean torchvision:resnet5",
        ),
        ("cifar:resnet1202", "there are no weights 'cifar:resnet1202'"),
        ("hf:nobody", "hf:nobody is not a name of weights on the Hugging Face Hub; write hf:OWNER/NAME"),
        ("timm:a/b", "write timm:NAME, as timm:resnet50.a1_in1k"),
    ],
)
def test_what_stands_for_nothing(
    given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in sentence_of(lambda: check(given))
    assert expected in sentence_of(lambda: load_weights(Path(given)))


def test_a_file_in_place_of_weights(tmp_path: Path) -> None:
    for name, said in (("a.JPG", "is an image, where weights are expected"), ("a.pth", "residual import")):
        (tmp_path / name).touch()
        assert said in sentence_of(lambda: check(tmp_path / name))  # noqa: B023


# --- what is fetched ---


def test_torchvisions_weights(server: FileServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = residual.load("torchvision:resnet50")
    assert network.classes[281] == "tabby"
    assert (network.views.crop, network.views.sides) == (224, (256,))
    assert network.config["model"]["options"]["variant"] == "v1.5"
    assert network.config["origin"]["name"] == "torchvision:resnet50"
    assert network.config["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert capfd.readouterr().err.count("downloading torchvision:resnet50 (") == 1
    # The file is gone: what is used is the folder.
    kept = {"config.json", "model.safetensors"}
    cache = tmp_path / "cache"
    assert everything(cache) == {f"weights/torchvision-resnet50/{name}" for name in kept}
    server.stop()
    again = residual.load("torchvision:resnet50.IMAGENET1K_V1")
    assert again.predict(smooth_image()) == network.predict(smooth_image())
    assert len(server.asked) == 1
    assert cached() == {"torchvision:resnet50": cache / "weights" / "torchvision-resnet50"}


def test_the_other_weights_of_a_network(server: FileServer) -> None:
    views = residual.load("torchvision:resnet50.IMAGENET1K_V2").views
    assert (views.crop, views.sides) == (224, (232,))


def test_public_weights_of_cifar10(server: FileServer) -> None:
    weights = load_weights(Path("cifar:resnet20"))
    assert weights.classes == (
        *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    )
    assert weights.config["model"]["options"] == {"in_channels": 3, "shortcut": "A"}
    assert weights.preprocessing.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    assert residual.load("cifar:resnet20").views.crop == 32


def test_what_torchvision_has_downloaded_is_used(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = (path for path in server.files if path.startswith("/resnet50-"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / path[1:]).write_bytes(b"half of it")
    load_weights(Path("torchvision:resnet50"))
    assert len(server.asked) == 1
    (folder / path[1:]).write_bytes(server.files[path])
    shutil.rmtree(tmp_path / "cache")
    load_weights(Path("torchvision:resnet50"))
    assert len(server.asked) == 1
    assert (folder / path[1:]).exists()


def test_a_real_resnet_gives_torchvisions_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file by hand in the cache, as large and of the form that torchvision's is."""
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.manual_seed(0)
    theirs = randomise(torchvision.models.resnet18())
    known = catalogue()["torchvision:resnet18"]
    file = tmp_path / "downloads" / known.file.name
    file.parent.mkdir()
    torch.save(theirs.state_dict(), file)
    said = sentence_of(lambda: load_weights(Path("torchvision:resnet18")))
    assert said.startswith(f"{file} is not torchvision:resnet18: expected the SHA-256 f37072fd, found ")
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    mine = replace(known, file=replace(known.file, checksum=checksum))
    monkeypatch.setattr(names, "catalogue", lambda: {"torchvision:resnet18": mine})
    assert_same_outputs(load_weights(Path("torchvision:resnet18")).model, theirs, noise())
    assert file.exists()  # somebody has put it there


# --- wherever a folder is taken ---


def test_a_name_does_for_all_commands(
    server: FileServer, images: Path, tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "torchvision:resnet50"
    smooth_image(300, 240).save("cat.jpg")
    (found,) = json.loads(shown("predict", name, "cat.jpg", "--json").out)
    assert found["top"][0]["name"] in {name for _, name in imagenet_classes()}
    wordnet = tmp_path / "folder" / "val" / "n02123045"
    wordnet.mkdir(parents=True)
    shutil.copy("cat.jpg", wordnet)
    folder = ("--dataset", "folder", "--data-dir", tmp_path / "folder")
    assert shown("evaluate", name, *folder).out.startswith(f"{name} on ")
    assert "ensemble of 2" in shown("ensemble", name, f"{name}.v2", *folder).out
    shown("export", name, "--torchvision", "a.pth")
    assert torch.load("a.pth", weights_only=True).keys() == load_weights(Path(name)).model.state_dict().keys()
    assert Path("weights").exists() is False


def test_fine_tuning_from_a_name(
    server: FileServer, images: Path, tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["data.folder.size=32", "data.folder.shorter_side=[36,48]", "batch.size=4"]
    settings += ["batch.bn_group=4", "schedule.iterations=2"]
    out = tmp_path / "run"
    told = shown(
        *("train", "finetune", "--weights", "torchvision:resnet50", "--data-dir", images, "--out", out),
        *set_options(settings),
    )
    assert "starting from all of torchvision:resnet50 but its classifier" in told.err
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["model"]["weights"] == "torchvision:resnet50"
    assert recipe["model"]["variant"] == "v1.5"
    assert load_weights(out).config["view"] is None  # those of the run follow its recipe
    # Begun anew on a machine that has no copy of them.
    for file in (out / "results.json", *out.glob("checkpoint-*")):
        file.unlink()
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.chdir(images)
    shown("train", "--resume", "--out", out)
    assert len(server.asked) == 2


def test_a_detector_from_a_name(server: FileServer, few_shapes: Path, tmp_path: Path, shown: Shown) -> None:
    settings = [s for s in BEGUN if "backbone" not in s and not s.startswith("name=")]
    told = shown(
        *("detect", "train", "voc-finetune", "--weights", "cifar:resnet20", "--data-dir", few_shapes),
        *("--out", tmp_path / "run", *set_options([*settings, "schedule.iterations=2"])),
    )
    assert "starting from the classifier cifar:resnet20" in told.err


def test_the_missing_network_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no folder resnet50; published weights are torchvision:resnet50" in refused(
        "predict", "resnet50", "cat.jpg"
    )
    assert "there is no folder resnet50" in refused("detect", "predict", "resnet50", "cat.jpg")
    # A name that is right waits until the images are known to be there.
    assert "there is no file cat.jpg" in refused("predict", "torchvision:resnet50", "cat.jpg")


def test_a_download_that_fails_is_a_sentence(
    server: FileServer, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth_image().save(tmp_path / "cat.jpg")
    ask = functools.partial(refused, "predict", "torchvision:resnet50", tmp_path / "cat.jpg")
    (path,) = (path for path in server.files if path.startswith("/resnet50-"))
    content = server.files.pop(path)
    put = tmp_path / "cache" / "downloads" / path[1:]
    assert f"HTTP Error 404: Not Found; try again, or fetch it by hand and put it at {put}" in ask()
    server.files[path] = content[:-1]
    assert "cannot download torchvision:resnet50 from " in (said := ask())
    assert "expected the SHA-256 " in said
    server.files[path] = content
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
        assert (
            ask().rstrip().endswith("name another cache folder with the environment variable RESIDUAL_CACHE")
        )
    with monkeypatch.context() as patch:
        (tmp_path / "a-file").touch()
        patch.setenv("RESIDUAL_CACHE", str(tmp_path / "a-file" / "cache"))
        assert "RESIDUAL_CACHE" in ask()
    assert everything(tmp_path / "cache") == set()


def test_the_list(server: FileServer, tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    fetched = shown("weights", "cifar:resnet20").out
    folder = tmp_path / "cache" / "weights" / "cifar-resnet20"
    assert fetched == f"cifar:resnet20 is in {folder}\n"
    assert json.loads(shown("weights", "cifar:resnet20", "--json").out) == {"cifar:resnet20": str(folder)}
    listed = shown("weights").out
    (row,) = (line for line in listed.splitlines() if "cifar:resnet20 " in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        *("cifar:resnet20", "269,722", "CIFAR-10", "8.27 %", "", "yes"),
    ]
    assert str(tmp_path / "cache") in listed
    known: dict[str, Any] = json.loads(shown("weights", "--json").out)
    assert known["cached"] == {"cifar:resnet20": str(folder)}
    assert known["known"][2]["top1_error"] == 23.87
