"""Weights from the Hugging Face Hub, as huggingface_hub fetches them from a server on this machine."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from conftest import assert_same_outputs, noise, save_network, sentence_of, smooth_image
from servers import HubServer

import residual
from residual.models.hub import ForeignWeights, _about, look_up, repository
from residual.models.names import cached
from residual.models.weights import load_weights


@pytest.fixture(scope="session")
def timms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet of timm's in timm's own files."""
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=3).eval()
    network.pretrained_cfg |= {
        "input_size": (3, 160, 160),
        "test_input_size": (3, 192, 192),
        "crop_pct": 0.9,
        "test_crop_pct": 0.95,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.25, 0.2, 0.1),
    }
    folder = tmp_path_factory.mktemp("timm")
    names = {"num_classes": 3, "label_names": ["ant", "bee", "cow"]}
    timm.models.save_for_hf(network, folder, model_config=names, safe_serialization=True)
    return folder


def test_a_weights_folder_of_ours(hub: HubServer, tmp_path: Path) -> None:
    mine = save_network(tmp_path / "mine")  # with a mean image
    hub.put("somebody/small", mine)
    network = residual.load("hf:somebody/small")
    same = residual.load(mine)
    image = smooth_image()
    assert network.predict(image) == same.predict(image)
    assert {path.rpartition("/")[2] for path, _ in hub.asked} == {path.name for path in mine.iterdir()}
    # Without a network it comes from the cache.
    hub.stop()
    assert residual.load("hf:somebody/small").classes == same.classes


def test_a_network_of_timms(hub: HubServer, timms: Path, tmp_path: Path) -> None:
    hub.put("timm/resnet18.mine", timms)
    weights = load_weights(Path("timm:resnet18.mine"))
    theirs = timm.create_model("resnet18", num_classes=3, checkpoint_path=str(timms / "model.safetensors"))
    assert_same_outputs(weights.model, theirs.eval(), noise())
    assert weights.classes == ("ant", "bee", "cow")
    assert weights.preprocessing.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert weights.preprocessing.std.flatten().tolist() == pytest.approx([0.25, 0.2, 0.1])
    assert weights.config["view"] == {"crop": 192, "side": math.floor(192 / 0.95)}
    assert weights.config["origin"] == {
        "name": "timm:resnet18.mine",
        "from": f"timm/resnet18.mine ({hub.commit})",
    }
    views = residual.load("hf:timm/resnet18.mine").views
    assert (views.crop, views.sides) == (192, (202,))
    assert cached().keys() == {"timm:resnet18.mine"}


def test_imagenets_names_where_timm_has_none(hub: HubServer, timms: Path, tmp_path: Path) -> None:
    config = json.loads((timms / "config.json").read_text())
    del config["label_names"]
    assert _about("resnet50", config | {"num_classes": 1000})["classes"][0] == "tench"
    assert _about("resnet50", config)["classes"] is None
    assert _about("resnet50", config)["variant"] == "v1.5"
    assert _about("resnet34", config)["variant"] is None


def test_files_that_were_fetched_by_hand(hub: HubServer, tmp_path: Path) -> None:
    said = sentence_of(lambda: residual.load("hf:somebody/small"))
    put = tmp_path / "cache" / "downloads" / "somebody--small"
    assert said == (
        f"cannot get config.json of hf:somebody/small from {hub.address}: there is no such repository, or it "
        "is not public; try again, or fetch the files of https://huggingface.co/somebody/small by hand and "
        f"put them into {put}"
    )
    save_network(put)
    asked = len(hub.asked)
    assert len(residual.load("hf:somebody/small").classes) == 10
    assert len(hub.asked) == asked


def test_files_of_timms_that_are_exchanged_by_hand_are_others(hub: HubServer) -> None:
    there = repository("timm:resnet18.mine")
    there.by_hand.mkdir(parents=True)
    (there.by_hand / "config.json").write_text('{"architecture": "resnet18"}')
    keys = []
    for content in (b"old", b"new", b"old"):
        (there.by_hand / "model.safetensors").write_bytes(content)
        found = look_up(there)
        assert isinstance(found, ForeignWeights)
        keys.append(found.key)
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf:somebody/else", "there is no such repository, or it is not public"),
        ("hf:somebody/small@v2", "it has no revision v2"),
        ("hf:somebody/empty", "cannot get config.json of hf:somebody/empty"),
        ("hf:somebody/other", "hf:somebody/other holds a vit_base; of timm's are known: resnet18, "),
        ("hf:somebody/alien", "config.json is damaged (Input should be a valid dictionary"),
        (
            "hf:somebody/odd",
            "config.json is damaged (pretrained_cfg.input_size: Input should be a valid list",
        ),
        ("hf:somebody/half", "cannot get model.safetensors of hf:somebody/half"),
    ],
)
def test_what_the_hub_has_not(name: str, expected: str, hub: HubServer, tmp_path: Path) -> None:
    hub.put("somebody/small", save_network(tmp_path / "mine"))
    start = "/somebody/{}/resolve/main/{}"
    hub.files[start.format("empty", "README.md")] = b""
    hub.files[start.format("other", "config.json")] = b'{"architecture": "vit_base"}'
    hub.files[start.format("alien", "config.json")] = b"[]"
    odd = b'{"architecture": "resnet18", "pretrained_cfg": {"input_size": 224}}'
    hub.files[start.format("odd", "config.json")] = odd
    hub.files[start.format("half", "config.json")] = b'{"architecture": "resnet18"}'
    assert expected in sentence_of(lambda: load_weights(Path(name)))


def test_no_connection(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    said = sentence_of(lambda: load_weights(Path("timm:resnet18.a1_in1k")))
    assert "there is no connection, and it is not in the cache" in said
    assert "fetch the files of https://huggingface.co/timm/resnet18.a1_in1k by hand" in said
    assert hub.asked == []


def test_a_wrong_checksum(hub: HubServer, tmp_path: Path) -> None:
    hub.put("somebody/small", save_network(tmp_path / "mine"))
    hub.checksums["model.safetensors"] = "0" * 64
    said = sentence_of(lambda: load_weights(Path("hf:somebody/small")))
    assert f"expected the SHA-256 {'0' * 16}..., found " in said


def test_a_full_disk(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    assert "the disk is full (HF_HOME names another folder)" in sentence_of(
        lambda: load_weights(Path("hf:somebody/small"))
    )


def test_without_huggingface_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert sentence_of(lambda: load_weights(Path("timm:resnet50.a1_in1k"))) == (
        "timm:resnet50.a1_in1k needs the package huggingface_hub: pip install huggingface_hub"
    )
