"""Values of a recipe: typed, changed by their path, and a sentence for everything that is wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from conftest import ROOT, sentence_of
from pydantic import BaseModel

from residual import InputError
from residual.recipes import (
    DETECTION,
    RECIPES,
    DetectionRecipe,
    LocalizationRecipe,
    Recipe,
    differences,
    find,
    override,
)
from residual.recipes.schema import Part


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


def test_a_text_of_digits_in_quotes_is_a_text_and_a_description_is_kept() -> None:
    recipe = override(RECIPES["finetune"], ['name="2024"', "description=mine", "data.validation=2e-1"])
    assert (recipe.name, recipe.description, recipe.data.validation) == ("2024", "mine", 0.2)
    assert override(recipe, ["seed=1"]).description == "2024 with seed: 0 -> 1"
    # Where a text cannot be, it is the number: values of Python's are written so.
    assert override(recipe, ['schedule.learning_rate="1e-3"']).schedule.learning_rate == 0.001
    assert override(recipe, ["schedule.learning_rate=1e-3 # low"]).schedule.learning_rate == 0.001


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("schedule.iteration=5", ["'schedule.iteration'", "schedule.iterations"]),
        ("shedule.iterations=5", ["'shedule.iterations'", "schedule.iterations"]),
        ("schedule.iterations=many", ["schedule.iterations", "'many'", "write a whole number"]),
        ("schedule.iterations=2.5", ["schedule.iterations", "2.5", "write a whole number"]),
        ("schedule.iterations=0", ["schedule.iterations", "write 1 or more"]),
        ("schedule.learning_rate=-1", ["schedule.learning_rate", "-1"]),
        ("schedule.learning_rate=.inf", ["schedule.learning_rate", "finite"]),
        ("schedule.drops=[0.7, 0.5]", ["schedule", "increasing"]),
        ("optimizer.momentum=1", ["optimizer.momentum", "write less than 1"]),
        ("optimizer.form=caffe", ["optimizer.form", "paper"]),
        ("batch.size=100", ["batch", "multiple of 64, or batch.bn_group=50"]),
        ("batch.size=97", ["batch", "multiple of 64, or batch.bn_group=97"]),
        ("data.dataset=cifar100", ["data.dataset", "cifar10"]),
        ("data.flip=maybe", ["data.flip", "write true or false"]),
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


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    classification, rest = text.split("## Training a detector")
    detection, localization = rest.split("## Training a localizer")

    def keys(part: type[BaseModel], path: str = "") -> Iterator[str]:
        for name, field in part.model_fields.items():
            kinds = (field.annotation, *get_args(field.annotation))
            parts = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Part)]
            yield from keys(parts[0], f"{path}{name}.") if parts else [path + name]

    assert [key for key in keys(Recipe) if f"`{key}`" not in classification] == []
    shared = ("optimizer.", "schedule.", "detector.backbone.")
    own = [key for key in keys(DetectionRecipe) if not key.startswith(shared)]
    assert [key for key in own if f"`{key}`" not in detection] == []
    shared = ("optimizer.", "schedule.", "localizer.backbone.")
    own = [key for key in keys(LocalizationRecipe) if not key.startswith(shared)]
    described = localization + classification.split("|---|", 1)[1]
    assert [key for key in own if f"`{key}`" not in described] == []


def test_iterations_that_are_asked_for_take_the_place_of_epochs() -> None:
    recipe = find("imagenet-resnet50-90epochs")
    assert recipe.schedule.epochs == 90
    shorter = override(recipe, ["schedule.iterations=20"])
    assert (shorter.schedule.iterations, shorter.schedule.epochs) == (20, None)
    both = override(recipe, ["schedule.iterations=20", "schedule.epochs=2"])
    assert both.schedule.epochs == 2


@pytest.mark.parametrize(
    ("recipe", "key", "meant"),
    [
        ("finetune", "lr", "schedule.learning_rate"),
        ("finetune", "epochs", "schedule.epochs"),
        ("finetune", "batch_size", "batch.size"),
        ("finetune", "train.lr", "schedule.learning_rate"),
        ("finetune", "split_seed", "data.split_seed"),
        ("finetune", "learning_rate", "schedule.learning_rate or schedule.warmup.learning_rate"),
        ("finetune", "data.validaton", "data.validation"),  # and not data.pad, which is short
        ("finetune", "schedule.iteratons", "schedule.iterations"),
    ],
)
def test_what_a_key_is_called_elsewhere(recipe: str, key: str, meant: str) -> None:
    said = sentence_of(lambda: override(find(recipe), [f"{key}=1"]))
    assert said.endswith(f"there is no key {key!r}; did you mean {meant}?")


@pytest.mark.parametrize(
    ("share", "said"),
    [
        ("1.5", "no share between 0 and 1"),
        ("-0.2", "write 0 or more"),
        ("20", "data.validation=20 is 20 images, and of a folder a share of each class is held out; write a"),
        ("most", "= 'most': write a number"),
    ],
)
def test_a_share_that_cannot_be(share: str, said: str) -> None:
    assert said in sentence_of(lambda: override(find("finetune"), [f"data.validation={share}"]))
    assert override(find("cifar10-resnet20"), ["data.validation=5000"]).data.validation == 5000


def test_the_shorter_side_follows_the_size_unless_it_is_set(tmp_path: Path) -> None:
    recipe = RECIPES["imagenet-resnet18"]
    assert recipe.data.folder is not None
    assert recipe.data.folder.shorter_side == (256, 480)

    def side(given: Recipe, *settings: str) -> tuple[int, int]:
        folder = override(given, list(settings)).data.folder
        assert folder is not None
        return folder.shorter_side

    assert side(recipe, "data.folder.size=64") == (73, 137)
    assert side(recipe, "data.folder.size=112") == (128, 240)
    assert side(recipe, "data.folder.size=64", "data.folder.shorter_side=[72,128]") == (72, 128)
    assert side(override(recipe, ["data.folder.shorter_side=[300,400]"]), "data.folder.size=64") == (300, 400)
    # A printed recipe whose size is changed by hand, and a run that was begun with the numbers written out.
    (tmp_path / "my.yaml").write_text(recipe.to_yaml().replace("size: 224", "size: 64"))
    assert side(find(str(tmp_path / "my.yaml"))) == (73, 137)
    (tmp_path / "old.yaml").write_text(
        recipe.to_yaml().replace("shorter_side: null", "shorter_side:\n    - 256\n    - 480")
    )
    assert differences(find(str(tmp_path / "old.yaml")), recipe) == []


@pytest.mark.parametrize(
    ("name", "setting", "words"),
    [
        ("digits-resnet20", "schedule.iterations=1" + "0" * 24, "four months"),
        ("digits-resnet20", "schedule.learning_rate=1e308", "float32"),
        ("digits-resnet20", "schedule.warmup.learning_rate=1e7", "float32"),
        ("digits-resnet20", "optimizer.weight_decay=1e30", "float32"),
        ("digits-resnet20", "data.pad=100000", "padded images are in memory"),
        ("digits-resnet20", "batch.size=1000000000", "a mini-batch is in memory as a whole"),
        ("digits-resnet20", "seed=9223372036854775808", "a seed has 63 bits"),
        ("digits-resnet20", "evaluate_every=1000000000000", "four months"),
        ("digits-resnet20", "name=" + "a" * 300, "at most 100 characters"),
        ("imagenet-resnet18", "data.folder.size=1000000", "more memory than there is"),
        ("imagenet-resnet18", "data.folder.shorter_side=[256,100000]", "more memory than there is"),
        ("imagenet-resnet18", "schedule.plateau.drops=400", "0 in float32"),
        ("imagenet-resnet18", "schedule.epochs=10000000", "no run is that long"),
        ("voc-finetune", "data.shorter_side=100000", "more memory than there is"),
        ("voc-finetune", "detector.proposals=1000000", "in memory at a time"),
        ("voc-finetune", "detector.roi_size=100000", "every region has a map of that side"),
        ("voc-finetune", "detector.anchor_sizes=[1000000000.0]", "no image is larger"),
    ],
)
def test_bounds_have_reasons(name: str, setting: str, words: str) -> None:
    recipe = DETECTION.get(name) or find(name)
    said = sentence_of(lambda: override(recipe, [setting]))
    assert setting.partition("=")[0] in said
    assert words in said
    assert len(said) < 700


@pytest.mark.parametrize(
    "text",
    [
        "seed: 2026-13-45",
        "seed: 1" + "0" * 5000,
        "[" * 5000,
        "x: &a [*a]",
        "a: &a [1]\nb: [*a]",
        "\tseed: 1",
    ],
)
def test_strange_yaml_is_a_sentence(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    said = sentence_of(lambda: find(str(file)))
    assert said.startswith(f"{file}: ")
    assert len(said) < 3000


def test_bombs_of_aliases_are_not_written_out(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    (tmp_path / "a.yaml").write_text("\n".join([*lines, "seed: *a11", "name: x"]))
    assert len(sentence_of(lambda: find(str(tmp_path / "a.yaml")))) < 3000


def test_epochs_between_evaluations_take_the_place_of_iterations() -> None:
    recipe = find("coco-resnet101", DetectionRecipe)
    assert recipe.evaluate_every == 80_000
    changed = override(recipe, ["evaluate_epochs=2"])
    assert (changed.evaluate_epochs, changed.evaluate_every) == (2, None)


def test_images_of_all_scales_have_a_longest_side() -> None:
    with pytest.raises(
        InputError, match=r"scale_range and longer_side make images of 80,000 pixels; 16,384 is"
    ):
        override(
            find("coco-resnet101", DetectionRecipe),
            ["data.scale_range=[1,10]", "data.longer_side=8000", "data.shorter_side=8000"],
        )


def test_of_several_settings_the_wrong_ones_are_named() -> None:
    recipe = find("cifar10-resnet20")

    def said(*settings: str) -> str:
        return sentence_of(lambda: override(recipe, ["seed=3", *settings, "schedule.iterations=100"]))

    assert said("batch.size=100").startswith("--set batch.size=100: batch: size 100 ")
    both = ("optimizer.momentum=1", "data.flip=maybe")
    assert said(*both).startswith(f"--set {' '.join(both)}: ")
    # A fault of what was not named, as of a part that was set as a whole.
    assert said("schedule.warmup.iterations=200").startswith(
        "--set schedule.warmup.iterations=200 schedule.iterations=100: schedule: "
    )


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.validation=20%", "data.validation = '20%': write a number"),
        ("data.validation=20", "data.validation = 20: write less than 1"),
        ("detector.anchor_sizes=32,64", "detector.anchor_sizes = '32,64': write a list in brackets, as"),
        ("detector.pooling=mean", "detector.pooling = 'mean': write 'pool' or 'align'"),
    ],
)
def test_wrong_settings_of_a_detector(setting: str, said: str) -> None:
    recipe = find("voc-finetune", DetectionRecipe)
    assert sentence_of(lambda: override(recipe, [setting])).startswith(f"--set {setting}: {said}")


def test_a_list_of_one_name_is_the_name() -> None:
    recipe = override(find("voc-finetune", DetectionRecipe), ["data.classes=cell", "data.train=train"])
    assert (recipe.data.classes, recipe.data.train) == (("cell",), ("train",))
