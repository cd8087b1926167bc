"""Recipes: the paper's numbers, YAML there and back, and a sentence for everything that is wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from residual import InputError
from residual.recipes import RECIPES, DetectionRecipe, Recipe, differences, find, override, read
from residual.recipes.schema import Part
from residual.training.schedule import learning_rate


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110, 1202])
@pytest.mark.parametrize("kind", ["plain", "resnet"])
def test_cifar10_recipes_are_section_4_2(kind: str, depth: int) -> None:
    recipe = RECIPES[f"cifar10-{kind}{depth}"]
    assert recipe.model.name == f"cifar_{kind}{depth}"
    assert (recipe.batch.size, recipe.batch.bn_group) == (128, 64)
    assert (recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.9, 1e-4)
    assert (recipe.data.pad, recipe.data.flip, recipe.data.mean) == (4, True, "per-pixel")
    rates = [learning_rate(recipe.schedule, i) for i in range(recipe.schedule.iterations)]
    assert len(rates) == 64_000
    warm = 400 if depth >= 110 else 0
    assert rates[:warm] == [0.01] * warm
    assert rates[warm:32_000] == [0.1] * (32_000 - warm)
    assert rates[32_000:48_000] == pytest.approx([0.01] * 16_000)
    assert rates[48_000:] == pytest.approx([0.001] * 16_000)


def test_two_recipes_of_a_family_differ_in_the_network_alone() -> None:
    changed = differences(RECIPES["cifar10-resnet20"], RECIPES["cifar10-plain56"])
    assert {line.split(":")[0] for line in changed} == {"name", "model.name"}


def test_a_shortened_run_has_its_drops_at_the_same_fractions() -> None:
    schedule = override(RECIPES["cifar10-resnet20"], ["schedule.iterations=4000"]).schedule
    rates = [learning_rate(schedule, i) for i in (0, 1999, 2000, 2999, 3000, 3999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_round_trip(name: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(RECIPES[name].to_yaml())
    assert read(path) == RECIPES[name]
    assert find(str(path)) == RECIPES[name]


def test_settings_are_typed_yaml_values() -> None:
    recipe = override(
        RECIPES["cifar10-resnet20"],
        [
            "optimizer.weight_decay=5e-4",
            "schedule.learning_rate=1",
            "schedule.drops=[0.3, 0.6, 0.9]",
            "schedule.warmup.iterations=10",
            "data.flip=false",
            "evaluate_every=7",
            "model.shortcut=B",
        ],
    )
    assert recipe.optimizer.weight_decay == 5e-4
    assert recipe.schedule.learning_rate == 1.0
    assert recipe.schedule.drops == (0.3, 0.6, 0.9)
    assert recipe.schedule.warmup is not None
    assert (recipe.schedule.warmup.iterations, recipe.schedule.warmup.learning_rate) == (10, 0.01)
    assert recipe.data.flip is False
    assert recipe.evaluate_every == 7
    assert recipe.model.shortcut == "B"
    assert override(RECIPES["cifar10-resnet110"], ["schedule.warmup=null"]).schedule.warmup is None


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("schedule.iteration=5", ["'schedule.iteration'", "schedule.iterations"]),
        ("shedule.iterations=5", ["'shedule.iterations'", "schedule.iterations"]),
        ("schedule.iterations=many", ["schedule.iterations", "'many'", "integer"]),
        ("schedule.iterations=2.5", ["schedule.iterations", "2.5", "integer"]),
        ("schedule.iterations=0", ["schedule.iterations", "greater than or equal to 1"]),
        ("schedule.learning_rate=-1", ["schedule.learning_rate", "-1"]),
        ("schedule.learning_rate=.inf", ["schedule.learning_rate", "finite"]),
        ("schedule.drops=[0.7, 0.5]", ["schedule", "increasing"]),
        ("optimizer.momentum=1", ["optimizer.momentum", "less than 1"]),
        ("optimizer.form=caffe", ["optimizer.form", "paper"]),
        ("batch.size=100", ["batch", "multiple of bn_group 64"]),
        ("data.dataset=cifar100", ["data.dataset", "cifar10"]),
        ("data.flip=maybe", ["data.flip", "boolean"]),
        ("name=../escape", ["name", "pattern"]),
        ("schedule.warmup.iterations=64000", ["warmup.iterations", "not shorter"]),
        ("seed", ["key=value"]),
        ("model=3", ["model", "3"]),
        ("seed=[", ["not a YAML value"]),
    ],
)
def test_wrong_settings(setting: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        override(RECIPES["cifar10-resnet20"], [setting])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


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


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    classification, detection = text.split("## Training a detector")

    def keys(part: type[BaseModel], path: str = "") -> Iterator[str]:
        for name, field in part.model_fields.items():
            kinds = (field.annotation, *get_args(field.annotation))
            parts = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Part)]
            yield from keys(parts[0], f"{path}{name}.") if parts else [path + name]

    assert [key for key in keys(Recipe) if f"`{key}`" not in classification] == []
    shared = ("optimizer.", "schedule.", "detector.backbone.")
    own = [key for key in keys(DetectionRecipe) if not key.startswith(shared)]
    assert [key for key in own if f"`{key}`" not in detection] == []


def test_iterations_that_are_asked_for_take_the_place_of_epochs() -> None:
    recipe = find("imagenet-resnet50-90epochs")
    assert recipe.schedule.epochs == 90
    shorter = override(recipe, ["schedule.iterations=20"])
    assert (shorter.schedule.iterations, shorter.schedule.epochs) == (20, None)
    both = override(recipe, ["schedule.iterations=20", "schedule.epochs=2"])
    assert both.schedule.epochs == 2
