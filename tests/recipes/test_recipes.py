"""The built-in recipes: found by name, written and read."""

from pathlib import Path

import pytest

from residual import InputError
from residual.recipes import RECIPES, differences, find, read
from residual.recipes.imagenet import TINY_NETWORKS


def test_two_recipes_of_a_family_differ_in_the_network_alone() -> None:
    changed = differences(RECIPES["cifar10-resnet20"], RECIPES["cifar10-plain56"])
    assert {line.split(":")[0] for line in changed} == {"name", "model.name"}


@pytest.mark.parametrize("network", TINY_NETWORKS)
def test_tiny_imagenets_recipes_differ_from_section_3_4_in_size_and_schedule(network: str) -> None:
    recipe = find(f"tiny-imagenet-{network}")
    assert recipe.data.folder is not None
    assert recipe.data.folder.size == 64
    assert recipe.schedule.epochs in range(1, 31)
    name, _, option = network.partition("-")
    expected = {"resnet18": "A", "resnet50": "B"}.get(network, option.upper() or None)
    assert (recipe.model.name, recipe.model.shortcut) == (name, expected)
    assert recipe.model.pool == "caffe"
    ours = find("tiny-imagenet-resnet18")
    same = {"name", "description", "model"}
    assert recipe.model_dump(exclude=same) == ours.model_dump(exclude=same)
    papers, changed = find("imagenet-resnet18"), {*same, "data", "batch", "schedule", "checkpoint_every"}
    assert ours.model_dump(exclude=changed) == papers.model_dump(exclude=changed)


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_round_trip(name: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(RECIPES[name].to_yaml())
    assert read(path) == RECIPES[name]
    assert find(str(path)) == RECIPES[name]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nmodel: {name: cifar_resnet20}\n", ["data", "required"]),
        ("name: a\nmodel: {name: cifar_resnet20}\ndata: {dataset: digits}\nepochs: 3\n", ["'epochs'"]),
        ("- a\n- b\n", ["mapping", "list"]),
        ("name: [\n", ["not valid YAML"]),
        ("", ["is empty", "residual recipes NAME"]),
    ],
)
def test_wrong_files(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_unknown_recipe_offers_the_nearest() -> None:
    with pytest.raises(InputError, match="cifar10-resnet20"):
        find("cifar-resnet20")
    with pytest.raises(InputError, match="there is no file"):
        find("nowhere.yaml")
