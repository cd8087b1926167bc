"""Inside a trained network, on its training images: in memory, and in folders."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import Refused, Shown, save_network

from residual.analysis.layers import responses
from residual.data.folder import index_folder
from residual.data.images import decode
from residual.distributed import World
from residual.environment import commit as environment_commit
from residual.evaluation.views import crop_views, make_views
from residual.inference import layers as inside
from residual.models import build_model
from residual.models.preprocessing import Preprocessing
from residual.models.weights import load_weights, save_weights
from residual.recipes import find, override
from residual.run.sources import Resident

#: The classes of the data called so.
DIGITS = tuple("0123456789")


def test_responses_of_a_network_of_folders_are_those_of_the_centres(
    trained_on_images: Path, images: Path, shown: Shown
) -> None:
    found = json.loads(shown("analyze", "responses", trained_on_images, "--json").out)
    weights, index = load_weights(trained_on_images), index_folder(images, "train")
    assert found["images"] == len(index)
    assert found["environment"]["commit"] == environment_commit()
    views = make_views("center", 32, 37)
    centres = [
        crop_views(decode(index.path(n), views.decoded_side)[None], views)[0][:, 0] for n in range(len(index))
    ]
    expected = responses(weights.model, (weights.preprocessing(image) for image in centres))
    assert [layer["layer"] for layer in found["layers"]] == [response.layer for response in expected]
    assert [layer["std"] for layer in found["layers"]] == pytest.approx([r.std for r in expected], rel=1e-4)
    # Fewer of them come from all classes: not the first ones, which are all of one.
    few = json.loads(shown("analyze", "responses", trained_on_images, "--images", "2", "--json").out)
    ends = [centres[0], centres[-1]]
    both = responses(weights.model, (weights.preprocessing(image) for image in ends))
    assert few["images"] == 2
    assert [layer["std"] for layer in few["layers"]] == pytest.approx([r.std for r in both], rel=1e-4)


def test_signals_of_a_network_of_folders(trained_on_images: Path, shown: Shown) -> None:
    arguments = ("analyze", "signals", trained_on_images, "--groups", "2", "--json")
    found = json.loads(shown(*arguments).out)
    assert list(found["moments"]) == ["at initialisation", "after training"]
    for layers in found["moments"].values():
        # Of the 8 layers all but the classifier.
        assert len(layers) == 7
        assert all(layer["variance"] > 0 and layer["gradient_norm"] > 0 for layer in layers)
    assert json.loads(shown(*arguments).out)["moments"] == found["moments"]
    # As a table each number has three digits, noughts at its end too.
    table = shown(*arguments[:-1]).out
    numbers = [word for word in table.split() if re.fullmatch(r"\d+\.\d*", word)]
    assert len(numbers) > 7
    assert all(len(number.replace(".", "").lstrip("0")) == 3 for number in numbers)


def test_imported_weights_are_measured_on_a_folder_that_is_named(
    images: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    classes = index_folder(images, "train").classes
    weights = save_network(tmp_path / "w", classes=classes, mean=torch.rand(3))
    folder = ("--dataset", "folder", "--data-dir", images)
    for command in ("responses", "signals"):
        assert "layer1.0.conv1" in shown("analyze", command, weights, *folder).out
    assert "name the folder that holds the training images" in refused(
        "analyze", "responses", weights, *folder[:2]
    )
    grey = save_network(tmp_path / "grey", classes=classes, mean=torch.rand(1))
    assert "takes images of 1 channels and files have 3" in refused("analyze", "responses", grey, *folder)


def test_signals_are_of_the_classes_by_their_names(tmp_path: Path, refused: Refused) -> None:
    """In memory as in folders: the loss, and with it all gradients, would be of others."""

    def norms(classes: tuple[str, ...]) -> list[float]:
        weights = save_network(tmp_path / classes[0], classes=classes, mean=torch.zeros(1))
        found = inside.layer_signals(weights, "digits", None, 1)["after training"]
        return [layer.gradient_norm for layer in found]

    same, reversed_ = norms(DIGITS), norms(DIGITS[::-1])
    assert same != pytest.approx(reversed_, rel=1e-3)
    others = save_network(tmp_path / "others", classes=tuple("abcdefghij"), mean=torch.zeros(1))
    assert "is not one of the network's 10 classes" in refused(
        "analyze", "signals", others, "--dataset", "digits"
    )


def test_what_is_measured_is_what_was_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups no larger than the mini-batch, in its order, and nothing that was held out."""
    settings = ["batch.size=8", "data.validation=1400", "data.split_seed=3", "data.balanced=true"]
    recipe = override(find("digits-resnet20"), settings)
    assert recipe.batch.bn_group == 64
    save_weights(
        tmp_path / "weights",
        build_model("cifar_resnet8", classes=10, in_channels=1),
        name="cifar_resnet8",
        options={"in_channels": 1},
        preprocessing=Preprocessing(torch.rand(1, 8, 8)),
        classes=DIGITS,
        recipe=recipe.model_dump(mode="json"),
    )
    monkeypatch.setattr(inside, "signals", lambda network, batches: [y.tolist() for _, y in batches])
    monkeypatch.setattr(inside, "responses", lambda network, batches, tell: [tell(len(x)) for x in batches])
    source = Resident(recipe, None)
    batches = source.batches(Preprocessing(torch.zeros(1, 8, 8)), torch.device("cpu"), World())
    expected = [batches(iteration)[1].tolist() for iteration in range(2)]
    generator = torch.get_rng_state()
    assert inside.layer_signals(tmp_path / "weights", None, None, 2)["after training"] == expected
    assert torch.equal(torch.get_rng_state(), generator)
    assert [len(group) for group in expected] == [8, 8]
    assert inside.layer_responses(tmp_path / "weights", None, None, 10_000)[1] == 38
