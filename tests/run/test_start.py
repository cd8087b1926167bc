"""What a run starts from: trained weights, of which nothing that was asked for is lost."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import (
    BEGUN,
    NARROW,
    SMALL,
    Call,
    Refused,
    Shown,
    assert_same_run,
    save_network,
    sentence_of,
    set_options,
    tensors_of,
)
from PIL import Image

from residual.detection.masks import MaskHead
from residual.detection.weights import read_detector
from residual.distributed import World
from residual.models.statedict import write_state
from residual.models.weights import load_weights
from residual.recipes import DetectionRecipe, find, override
from residual.run import start_from
from residual.run.detection import DetectionTask
from residual.run.start import start_classifier

#: Two iterations of fine-tuning.
TUNE = ["data.folder.size=32", "data.folder.shorter_side=[36,48]", "batch.size=4", "schedule.iterations=2"]
#: Two iterations of a detector that is made from weights.
DETECT = [s for s in BEGUN if "backbone" not in s and not s.startswith("name=")] + ["schedule.iterations=2"]


def recipe_of(run: Path) -> dict[str, dict[str, object]]:
    return yaml.safe_load((run / "recipe.yaml").read_text())


def test_fine_tuning_replaces_the_classifier_and_keeps_the_rest(
    trained_on_images: Path, images: Path, tmp_path: Path, shown: Shown
) -> None:
    two = tmp_path / "two"
    for part in ("train", "val"):
        for name in ("ant", "cow"):
            (two / part).mkdir(parents=True, exist_ok=True)
            (two / part / name).symlink_to(images / part / name)
    out = tmp_path / "tuned"
    settings = ["data.folder.size=32", "data.folder.shorter_side=[36,48]", "batch.size=4", "batch.bn_group=4"]
    settings += ["schedule.epochs=1", "schedule.learning_rate=1e-9"]
    told = shown(
        *("train", "finetune", "--weights", trained_on_images, "--data-dir", two, "--out", out),
        *set_options(settings),
    )
    assert "but its classifier, new for 2 classes" in told.err
    assert "note: 1 epoch of " in told.err
    assert "images in batches of 4 make 3 iterations, in which a network learns little" in told.err
    tuned, before = load_weights(out), load_weights(trained_on_images)
    assert tuned.classes == ("ant", "cow")
    assert tuned.config["model"]["name"] == "cifar_resnet8"
    # At that rate nothing moves visibly; the preprocessing is that of the weights.
    assert torch.equal(tuned.preprocessing.mean, before.preprocessing.mean)
    moved = (tuned.model.layer3[0].conv2.weight - before.model.layer3[0].conv2.weight).abs().max()
    assert moved < 1e-6
    assert tuned.model.linear.weight.shape == (2, 64)
    # Resuming a complete run needs nothing named again.
    shown("train", "--resume", "--out", out)


def test_weights_of_the_same_classes_are_kept_whole(trained_on_images: Path) -> None:
    before = load_weights(trained_on_images)
    settings = ["model.name=cifar_resnet8", f"model.weights={trained_on_images}"]
    begun = start_classifier(override(find("finetune"), settings), before.classes, 3)
    assert begun.note == f"all of {trained_on_images}"
    assert begun.preprocessing is not None
    assert torch.equal(begun.preprocessing.mean, before.preprocessing.mean)
    mine, theirs = begun.model.state_dict(), before.model.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_classifier_is_no_detector_and_the_reverse(
    begun_detector: Path, tmp_path: Path, refused: Refused
) -> None:
    classifier = save_network(tmp_path / "classifier", classes="ab")
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    said = refused("detect", "predict", classifier, tmp_path / "x.png")
    assert "holds a classifier, and a detector is expected" in said
    assert "holds a detector, and a classifier is expected" in refused("evaluate", begun_detector)


def test_a_detector_starts_from_a_classifier_or_a_detector(
    few_shapes: Path, tmp_path: Path, shown: Shown
) -> None:
    mean, std = torch.full((3, 32, 32), 0.5), torch.tensor([0.2, 0.3, 0.4])
    classifier = save_network(tmp_path / "classifier", classes="ab", mean=mean, std=std)
    start = ["detect", "train", "voc-finetune", *set_options([*DETECT, "schedule.learning_rate=1e-9"])]
    start += ["--data-dir", few_shapes]
    first, second = tmp_path / "first", tmp_path / "second"
    told = shown(*start, "--weights", classifier, "--out", first).err
    assert f"starting from the classifier {classifier}" in told
    told = shown(*start, "--weights", first, "--out", second).err
    assert f"starting from the detector {first}" in told
    name = "backbone.network.bn1.scale"
    assert torch.equal(tensors_of(first)[name], tensors_of(second)[name])
    assert tensors_of(first)["preprocessing.mean"].flatten().tolist() == [0.5] * 3
    assert torch.equal(tensors_of(first)["preprocessing.std"].flatten(), std)
    # At that rate nothing moves visibly; BN is folded into a scale.
    before = load_weights(classifier).model
    layer, norm = "layer3.0.conv2.weight", before.bn1
    moved = tensors_of(first)[f"backbone.network.{layer}"] - before.state_dict()[layer]
    assert moved.abs().max() < 1e-6
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(tensors_of(first)[name].flatten(), scale)


def test_a_detector_that_goes_on_has_the_network_that_it_had(
    begun_detector: Path, few_shapes: Path, tmp_path: Path, refused: Refused
) -> None:
    start = ["detect", "train", "voc-finetune", *set_options(DETECT), "--data-dir", few_shapes]
    for setting, words in (
        ("name=cifar_resnet14", "is a cifar_resnet8 and the recipe is for a cifar_resnet14"),
        ("shortcut=C", "has shortcut A and the recipe C"),
    ):
        changed = ["--weights", begun_detector, "--set", f"detector.backbone.{setting}"]
        assert words in refused(*start, *changed, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("name", "option", "theirs", "asked"),
    [
        ("cifar_resnet8", "shortcut", "A", "C"),
        ("resnet18", "shortcut", "B", "C"),
        ("resnet50", "variant", "v1", "v1.5"),
        ("resnet18", "pool", "torchvision", "caffe"),
    ],
)
@pytest.mark.parametrize("detection", [False, True], ids=["classifier", "detector"])
def test_a_setting_that_does_not_fit_the_weights_is_never_lost(
    name: str,
    option: str,
    theirs: str,
    asked: str,
    detection: bool,
    images: Path,
    few_shapes: Path,
    tmp_path: Path,
    refused: Refused,
) -> None:
    weights = save_network(tmp_path / "weights", name, classes="ab", mean=torch.rand(3))
    if detection:
        start = ["detect", "train", "voc-finetune", *set_options(DETECT), "--data-dir", few_shapes]
        key = f"detector.backbone.{option}"
    else:
        start, key = ["train", "finetune", *set_options(TUNE), "--data-dir", images], f"model.{option}"
    out = tmp_path / "run"
    said = refused(*start, "--weights", weights, "--set", f"{key}={asked}", "--out", out)
    # A machine with bfloat16 is told of it first.
    assert len([line for line in said.splitlines() if not line.startswith("note: ")]) == 1
    assert f"has {option} {theirs} and the recipe {asked}" in said
    assert not out.exists()


def test_a_setting_that_fits_the_weights_is_kept(
    images: Path, few_shapes: Path, tmp_path: Path, shown: Shown
) -> None:
    weights = save_network(tmp_path / "weights", classes="ab", shortcut="C")
    out = tmp_path / "tuned"
    tune = ["train", "finetune", *set_options(TUNE), "--data-dir", images, "--weights", weights]
    shown(*tune, "--set", "model.shortcut=C", "--out", out)
    assert recipe_of(out)["model"]["shortcut"] == "C"
    assert load_weights(out).config["model"]["options"]["shortcut"] == "C"
    out = tmp_path / "detector"
    detect = ["detect", "train", "voc-finetune", *set_options(DETECT), "--data-dir", few_shapes]
    setting = "detector.backbone.shortcut=C"
    shown(*detect, "--weights", weights, "--set", setting, "--out", out)
    assert recipe_of(out)["detector"]["backbone"]["shortcut"] == "C"  # type: ignore[index]


def test_a_network_that_the_weights_are_not_of(images: Path, tmp_path: Path, refused: Refused) -> None:
    weights = save_network(tmp_path / "weights", classes="ab")
    start = ["train", "finetune", *set_options(SMALL), "--data-dir", images, "--weights", weights]
    said = refused(*start, "--set", "model.name=cifar_resnet14", "--out", tmp_path / "run")
    assert "is a cifar_resnet8 and the recipe is for a cifar_resnet14" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("detection", [False, True], ids=["classifier", "detector"])
def test_weights_that_were_named_by_a_relative_path_are_found_from_elsewhere(
    detection: bool,
    images: Path,
    few_shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shown: Shown,
) -> None:
    weights = save_network(tmp_path / "here" / "weights", classes="ab")
    (tmp_path / "there").mkdir()
    out = tmp_path / "run"
    words = ["detect", "train"] if detection else ["train"]
    settings = set_options(DETECT if detection else TUNE)
    start = [*words, "voc-finetune" if detection else "finetune", *settings]
    monkeypatch.chdir(tmp_path / "here")
    data = few_shapes if detection else images
    shown(*start, "--weights", "weights", "--data-dir", data, "--out", out)
    recipe = recipe_of(out)
    network = recipe["detector"]["backbone"] if detection else recipe["model"]
    assert network["weights"] == str(weights)  # type: ignore[index]
    # As if it had been killed before the end.
    (out / "results.json").unlink()
    monkeypatch.chdir(tmp_path / "there")
    assert "2 iterations" in shown(*words, "--resume", "--out", out).out


def test_stages_that_stay_and_classes_in_balance(
    images: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    weights = save_network(tmp_path / "weights", mean=torch.rand(3))
    words = [*set_options([*SMALL, "model.freeze=3", "data.balanced=true"]), "--data-dir", images, "--out"]
    shown("train", "finetune", "--weights", weights, *words, tmp_path / "run")
    before, after = load_weights(weights).model.state_dict(), tensors_of(tmp_path / "run")
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"layer3", "linear"}
    said = refused("train", "imagenet-resnet18", *words, tmp_path / "none")
    assert "model.freeze keeps what weights have learned; name some with --weights" in said
    too_many = ["--set", "model.freeze=5"]
    said = refused("train", "finetune", "--weights", weights, *words, tmp_path / "none", *too_many)
    assert "the network has 4 stages, and no more can stay" in said


@pytest.mark.long
@pytest.mark.parametrize("kind", ["classifier", "detector", "detector from a detector"])
def test_an_interrupted_run_needs_its_weights_no_more(
    kind: str, images: Path, few_shapes: Path, begun_detector: Path, tmp_path: Path, shown: Shown
) -> None:
    weights = tmp_path / "weights"
    if kind == "classifier":
        save_network(weights, classes="ab", mean=torch.rand(3))
        start = [
            "train",
            "finetune",
            *set_options([*SMALL, "data.folder.damaged=skip"]),
            "--data-dir",
            images,
        ]
    else:
        if kind == "detector":
            save_network(weights, classes="ab", mean=torch.full((3,), 0.4))
        else:
            shutil.copytree(begun_detector, weights)
        start = ["detect", "train", "voc-finetune", *set_options(DETECT[:-1]), "--data-dir", few_shapes]
    whole, out = tmp_path / "whole", tmp_path / "run"
    shown(*start, "--weights", weights, "--out", whole)
    shutil.copytree(whole, out)
    # As if it had been killed after its last checkpoint but one.
    sorted(out.glob("checkpoint-*"))[-1].unlink()
    (out / "results.json").unlink()
    shutil.rmtree(out / "weights")
    shutil.rmtree(weights)
    words = ["detect", "train"] if kind != "classifier" else ["train"]
    assert "continuing at iteration" in shown(*words, "--resume", "--out", out).err
    assert_same_run(whole, out)
    config, other = (json.loads((folder / "weights" / "config.json").read_text()) for folder in (whole, out))
    # But for the seconds that both took.
    assert config.pop("results").keys() == other.pop("results").keys()
    assert config == other
    sessions = json.loads((out / "environment.json").read_text())
    assert sessions[1]["started_from"] == sessions[0]["started_from"]


def test_another_recipe_goes_on_from_a_runs_weights(
    trained_on_images: Path, images: Path, refused: Refused
) -> None:
    start = ["train", "--resume", "--out", trained_on_images, "--data-dir", images]
    goes_on = f"--weights {trained_on_images} --out FOLDER"
    recipe = ["imagenet-resnet18", *set_options([*NARROW, "batch.size=4"])]
    said = refused(*start, *recipe)
    assert "batch.size: 8 -> 4" in said
    assert goes_on in said
    assert goes_on in refused(*start, "--set", "schedule.learning_rate=0.1")


def test_a_recipe_does_not_speak_of_the_network_that_the_weights_replace(tmp_path: Path) -> None:
    weights = save_network(tmp_path / "w", classes="ab")
    for recipe in (find("imagenet-resnet18"), find("voc07+12-resnet101", DetectionRecipe)):
        own = recipe.name.rpartition("-")[2]
        said = start_from(recipe, weights).description
        assert said == f"{recipe.name} with cifar_resnet8 in place of {own}"
    assert start_from(find("finetune"), weights).description == find("finetune").description


def test_masks_are_what_the_recipe_or_the_weights_have(
    begun_detector: Path, few_shapes: Path, tmp_path: Path
) -> None:
    """And never more than the recipe can have; the copy's config says that it has a mask head."""
    masked = shutil.copytree(begun_detector / "weights", tmp_path / "masked")
    config = json.loads((masked / "config.json").read_text())
    config["detector"]["masks"] = True
    (masked / "config.json").write_text(json.dumps(config))
    model = read_detector(begun_detector).model
    model.mask_head = MaskHead(model.backbone.width, model.classes)
    (masked / "model.safetensors").unlink()
    write_state(model, masked / "model.safetensors")
    own = find("voc-finetune", DetectionRecipe)
    with_masks = override(own, ["detector.masks=true"])
    assert not start_from(own, begun_detector).detector.masks
    assert start_from(with_masks, begun_detector).detector.masks
    started = override(start_from(own, masked), ["data.train=[train]"])
    assert started.detector.masks
    said = sentence_of(lambda: DetectionTask(started, few_shapes, World()))
    assert "or learn boxes alone with --set detector.masks=false" in said
    for name in ("voc07+12-resnet101-4step", "imagenet-det-resnet101"):
        recipe = override(find(name, DetectionRecipe), ["detector.global_context=false"])
        assert not start_from(recipe, masked).detector.masks


def test_a_detector_brings_its_images_sides_with_its_anchors(begun_detector: Path) -> None:
    own = override(
        find("voc-finetune", DetectionRecipe),
        ["detector.max_detections=300", "detector.ignore_cross_boundary_anchors=true"],
    )
    started = start_from(own, begun_detector)
    # How it learns, and how much it may find, stays the recipe's.
    assert started.detector.max_detections == 300
    assert started.detector.ignore_cross_boundary_anchors
    assert started.detector.anchor_sizes == (14, 20)
    assert (started.data.shorter_side, started.data.longer_side) == (48, 48)
    assert (own.data.shorter_side, own.data.longer_side) == (600, 1000)
    assert started.data.train == own.data.train


def test_data_that_are_gone_are_named(
    images: Path, few_shapes: Path, tmp_path: Path, call: Call, refused: Refused, shown: Shown
) -> None:
    """A run that was stopped, a complete one, and one of a detector; their images are elsewhere now."""
    for kind, recipe, settings, source in (
        ((), "imagenet-resnet18", NARROW, images),
        (("detect",), "voc-finetune", BEGUN, few_shapes),
    ):
        data, out = tmp_path / "data", tmp_path / f"run {recipe}"
        shutil.copytree(source, data)
        assert call(*kind, "train", recipe, *set_options(settings), "--data-dir", data, "--out", out) == 0
        now = data.rename(tmp_path / f"elsewhere {recipe}")
        gone = f"{data}, where the images of {out} lay, is not there; name the folder "
        assert gone in refused(*kind, "evaluate", out)
        told = shown(*kind, "train", "--resume", "--out", out)
        assert f"{out} is complete, so nothing was trained" in told.err
        (out / "results.json").unlink()
        assert gone in refused(*kind, "train", "--resume", "--out", out)
        assert gone in refused("finish", out)
        shown(*kind, "train", "--resume", "--out", out, "--data-dir", now)
