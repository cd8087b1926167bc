"""A network in a file of the user's own: trained, loaded, and never run without having been asked for."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY, Refused, Shown, noise, sentence_of, set_options, smooth_image, tensors_of
from servers import HubServer

import residual
from residual.evaluation.inputs import check_input
from residual.models import own
from residual.models.inference import for_inference
from residual.models.own import OwnNetwork, build_own
from residual.models.preprocessing import Preprocessing
from residual.models.weights import load_weights, save_weights
from residual.recipes import Recipe, find
from residual.run import start_from
from residual.run.run import with_own_code
from residual.run.start import start_classifier

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


def lazy(classes, in_channels=3):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))
"""

#: What people write: a head before the body, one layer under two names, rows of a map, a dataclass.
USUAL = """
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Widths:
    body: int = 4
    rows: int = 4 * 8 * 8


class Rows(nn.Module):
    def __init__(self, classes, in_channels, widths):
        super().__init__()
        self.head = nn.Linear(widths.rows, classes)
        self.first = nn.Conv2d(in_channels, widths.body, 3, padding=1)
        self.body = nn.Conv2d(widths.body, widths.body, 3, padding=1)
        self.again = self.body

    def forward(self, x):
        x = self.again(self.body(self.first(x)).relu()).relu()
        return self.head(x.view(x.size(0), -1))


def build(classes, in_channels=3):
    return Rows(classes, in_channels, Widths())


def wider(classes, in_channels=3):
    return Rows(classes, in_channels, Widths(body=8 if classes > 4 else 4))


class Staged(nn.Module):
    def __init__(self, classes, in_channels):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(in_channels, 4, 3, padding=1), nn.ReLU())
        self.scores = nn.Parameter(torch.ones(classes, 4))

    def score_map(self, x):
        return self(x)

    def stage_layers(self):
        return self.features

    def forward(self, x):
        return self.features(x).mean(dim=(2, 3)) @ self.scores.T


def staged(classes, in_channels=3):
    return Staged(classes, in_channels)


class Keeping(Rows):
    grid = None

    def forward(self, x):
        if self.grid is None:
            self.grid = torch.linspace(0, 1, x.shape[3])
        self.seen, self.maps = x, [self.first(x * self.grid)]
        return super().forward(x * self.grid)


def keeping(classes, in_channels=3):
    return Keeping(classes, in_channels, Widths())
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
    assert f"the code in {mine} is run: now, and from now on where" in shown(*train(mine), "--out", run).err
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
    said = refused("train", "digits-resnet20", "--set", f"model.name={mine}", "--out", tmp_path / "run")
    assert f"named by its file and a function in it: {mine}:FUNCTION" in said


def test_nothing_to_be_trusted(trained_on_images: Path, refused: Refused) -> None:
    assert "there is no code in it to be trusted" in refused("trust", trained_on_images)


@pytest.fixture
def usual(tmp_path: Path) -> Path:
    file = tmp_path / "usual.py"
    file.write_text(USUAL, encoding="utf-8")
    return file


def stored(usual: Path, function: str = "build", classes: str = "ab") -> Path:
    """Write the weights of a network that nobody has trained, which may run, and return them."""
    name = f"{usual}:{function}"
    own.trust(name)
    folder = usual.parent / f"{function}-{classes}"
    network = build_own(name, len(classes))
    given = {"name": name, "options": {"in_channels": 3}, "classes": tuple(classes)}
    save_weights(folder, network, preprocessing=Preprocessing(torch.full((3,), 0.5)), **given)  # type: ignore[arg-type]
    return folder


def test_what_people_write_is_trained_kept_and_shared(
    usual: Path, tmp_path: Path, hub: HubServer, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shown(*train(usual), "--out", run)
    tensors = tensors_of(run)
    assert torch.equal(tensors["network.again.weight"], tensors["network.body.weight"])
    network = load_weights(run).model
    assert isinstance(network, OwnNetwork)
    assert network.network.again is network.network.body
    x = noise(1, 8)
    # A module by its own: its keys are its own.
    shown("export", run, "--torchvision", tmp_path / "own.pth")
    module = build_own(f"{usual}:build", 10, 1).network
    module.load_state_dict(torch.load(tmp_path / "own.pth", weights_only=True))
    assert torch.equal(module(x), network(x))
    # Through the Hub to somebody else.
    shared = tmp_path / "shared"
    shown("push", run, "somebody/own", "--dry-run", shared)
    card = (shared / "README.md").read_text(encoding="utf-8")
    assert "A network of its author's own (`network.py`) for 10 classes" in card
    assert "\nresidual trust hf:somebody/own    # loading it runs its network.py: read that first\n" in card
    hub.put("somebody/own", shared)
    own._file().unlink()
    monkeypatch.setattr(own, "_HERE", set())
    assert "residual trust" in sentence_of(lambda: residual.load("hf:somebody/own"))
    shown("trust", "hf:somebody/own")
    theirs = load_weights(Path("hf:somebody/own"))
    assert torch.equal(theirs.model(x), network(x))
    # A run that starts from it names the code by its place in the cache, which is a link.
    recipe = with_own_code(start_from(find("finetune"), Path("hf:somebody/own")))
    assert recipe.model.name == theirs.config["model"]["name"]


def test_a_module_is_known_as_long_as_its_networks(mine: Path, usual: Path) -> None:
    before = set(sys.modules)
    first, second = (build_own(f"{usual}:build", 3).network for _ in range(2))
    assert sys.modules[type(first).__module__].__file__ == str(usual)
    assert type(first).__module__ != type(second).__module__
    assert len(set(sys.modules) - before) == 2
    sentence_of(lambda: build_own(f"{mine}:breaks", 3))
    sentence_of(lambda: build_own(f"{mine}:none", 3))
    assert len(set(sys.modules) - before) == 2


def test_maps_are_in_the_usual_format(usual: Path) -> None:
    network = for_inference(build_own(f"{usual}:build", 3))
    x = noise(3, 8).contiguous(memory_format=torch.channels_last)
    assert network(x).shape == (1, 3)


def test_a_network_may_keep_what_it_has_computed(usual: Path) -> None:
    """Nothing of the check of its input, which is no pass of its own; what a pass that learned has left."""
    network = build_own(f"{usual}:keeping", 3)
    check_input(network, "keeping", (3, 8, 8))
    assert network.get_submodule("network").grid is None
    x = noise(3, 8)
    network(x).sum().backward()
    with torch.no_grad():
        assert torch.equal(for_inference(network)(x), network(x))


def test_layers_that_take_their_size_from_images_have_their_sentence(mine: Path) -> None:
    said = sentence_of(lambda: build_own(f"{mine}:lazy", 3))
    assert "1.weight has no size before the network has seen an image" in said


def test_methods_that_are_others_have_their_sentence(usual: Path, tmp_path: Path, refused: Refused) -> None:
    network = build_own(f"{usual}:staged", 3)
    said = f"{usual}:staged: the network's features gives (1, 4, 8, 8), and a dictionary of maps (N, C, h, w)"
    assert said in sentence_of(lambda: network.features(noise(3, 8)))
    said = "the network's score_map gives (1, 3), and scores (1, 3, h, w) is expected"
    assert said in sentence_of(lambda: network.score_map(noise(3, 8)))
    assert "stage_layers gives a Sequential, and a list of modules for each" in sentence_of(
        network.stage_layers
    )
    assert "features gives (1, 4, 224, 224)" in refused("complexity", f"{usual}:staged")
    smooth_image().save(tmp_path / "a.png")
    words = ("embed", stored(usual, "staged"), tmp_path / "a.png", "--out", tmp_path / "a.npz")
    assert "features gives (1, 4, 32, 32)" in refused(*words)


@pytest.mark.parametrize("classes", ["xy", "xyz"])
def test_the_layer_that_gives_the_scores_starts_anew(classes: str, usual: Path) -> None:
    """Wherever it stands, and whatever it is."""
    for function, anew in (("build", {"head.weight", "head.bias"}), ("staged", {"scores"})):
        weights = stored(usual, function)
        recipe = start_from(find("finetune"), weights)
        assert isinstance(recipe, Recipe)
        begun = start_classifier(recipe, tuple(classes), 3).model.state_dict()
        before = load_weights(weights).model.state_dict()
        fresh = build_own(f"{usual}:{function}", len(classes)).state_dict()
        assert begun.keys() == before.keys() == fresh.keys()
        for name, tensor in begun.items():
            if name.removeprefix("network.") in anew:
                assert tensor.shape == fresh[name].shape
                assert function == "staged" or len(classes) != 2 or not torch.equal(tensor, before[name])
            else:
                assert torch.equal(tensor, before[name])


def test_a_body_of_another_width_is_another_network(usual: Path) -> None:
    weights = stored(usual, "wider")
    recipe = start_from(find("finetune"), weights)
    assert "does not fit" in sentence_of(lambda: start_classifier(recipe, tuple("abcdef"), 3))


def test_images_that_a_network_cannot_take(usual: Path, tmp_path: Path, refused: Refused) -> None:
    smooth_image().save(
        (tmp_path / "data" / "val" / "a").mkdir(parents=True) or tmp_path / "data/val/a/a.png"
    )
    words = (
        "evaluate",
        stored(usual),
        "--dataset",
        "folder",
        "--data-dir",
        tmp_path / "data",
        "--size",
        "16",
    )
    assert "cannot take images of 16 x 16 pixels (RuntimeError: mat1 and mat2" in refused(*words)
