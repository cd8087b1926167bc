"""Networks tested on folders of images, held against torchvision's evaluation."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from conftest import (
    ROOT,
    SEVEN,
    Call,
    Refused,
    Shown,
    pixels_of,
    randomise,
    results_of,
    save_network,
    sentence_of,
    write_images,
)
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

import residual
from residual import InputError, build_model
from residual.class_names import imagenet_classes
from residual.evaluation.inputs import views_for
from residual.evaluation.scores import load_scores
from residual.inference.evaluation import EvaluationOptions, evaluate
from residual.models.weights import import_weights, load_weights
from residual.recipes import find, override

DIGITS = tuple("0123456789")


@pytest.mark.parametrize(
    ("name", "variant"),
    [("resnet50", "v1.5"), pytest.param("vgg16", None, marks=pytest.mark.slow)],  # half a gigabyte of weights
)
def test_torchvisions_weights_give_torchvisions_results(
    name: str, variant: str | None, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    theirs: Any = randomise(getattr(torchvision.models, name)(num_classes=1000))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    wordnet_ids = tuple(imagenet_classes()[k][0] for k in (574, 0, 217))
    sizes = ((330, 300), (300, 320), (300, 300))
    data = write_images(tmp_path / "data", wordnet_ids, train=3, val=3, sizes=sizes)
    chosen = ("--variant", variant) if variant else ()
    assert (
        call(
            *("import", tmp_path / "theirs.pth", "--model", name, *chosen),
            *("--classes", "imagenet", "--out", tmp_path / "w"),
        )
        == 0
    )
    capsys.readouterr()
    saved = tmp_path / "scores.safetensors"
    folder = ("--dataset", "folder", "--data-dir", data)
    assert call("evaluate", tmp_path / "w", *folder, "--json", "--save-scores", saved) == 0
    shown = json.loads(capsys.readouterr().out)

    found = load_scores(saved)
    preset = torchvision.transforms._presets.ImageClassification(crop_size=224, resize_size=256)
    targets = {wnid: k for k, (wnid, _) in enumerate(imagenet_classes())}
    wrong = {1: 0, 5: 0}
    for row, target, image_id in zip(found.probabilities, found.targets, found.ids, strict=True):
        file = data / "val" / image_id
        assert target == targets[file.parent.name]
        with torch.inference_mode():
            expected = theirs(preset(Image.open(file))[None]).softmax(dim=1)[0]
        torch.testing.assert_close(row, expected, rtol=2e-3, atol=1e-6)
        for k in wrong:
            wrong[k] += int(target not in expected.topk(k).indices)
    assert shown["images"] == 3
    assert shown["top1_error"] == pytest.approx(100 * wrong[1] / 3)
    assert shown["top5_error"] == pytest.approx(100 * wrong[5] / 3)
    assert "3 of the network's 1,000 classes" in shown["matched"]


@pytest.mark.parametrize("protocol", ["center", "ten-crop", "multi-scale"])
def test_a_folder_is_tested_as_one_image_at_a_time(protocol: Any, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", SEVEN, train=7, val=35)
    weights = save_network(tmp_path / "w", classes=SEVEN)
    options = EvaluationOptions("folder", "test", data, protocol, scales=(36, 44))
    found = evaluate(weights, options, keep_scores=True).scores
    assert found is not None
    assert len(found) == 35
    saved = load_weights(weights)
    rows = []
    for file in sorted((data / "val").rglob("*.png")):
        image = pixels_of(Image.open(file))
        each = []
        for side in (36, 44):
            resized = transforms.resize(image, [side], antialias=True)
            views = [resized]
            if protocol == "center":
                views = [transforms.center_crop(resized, [32])]
            if protocol == "ten-crop":
                views = list(transforms.five_crop(resized, [32]))
            if protocol != "center":
                views += [view.flip(-1) for view in views]
            with torch.inference_mode():
                each += [saved.model(saved.preprocessing(view[None])).softmax(dim=1)[0] for view in views]
        rows.append(torch.stack(each).mean(dim=0))
    torch.testing.assert_close(found.probabilities, torch.stack(rows), rtol=1e-4, atol=1e-6)
    assert found.targets.tolist() == [k for k in range(7) for _ in range(5)]


def test_classes_in_another_order_and_a_subset(
    tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_images(tmp_path / "data", ("ant", "dog", "gnu"), train=3, val=3)
    order = ("gnu", "fox", "elk", "dog", "cat", "bee", "ant")
    weights = save_network(tmp_path / "w", classes=order)
    options = EvaluationOptions("folder", "test", data)
    found = evaluate(weights, options, keep_scores=True)
    assert found.scores is not None
    assert found.scores.targets.tolist() == [6, 3, 0]
    assert found.scores.classes == order
    assert call("evaluate", weights, "--dataset", "folder", "--data-dir", data) == 0
    shown = capsys.readouterr()
    assert "3 of the network's 7 classes, matched by name" in shown.err
    assert "top-1 error" in shown.out
    assert "top-5 error" in shown.out
    with pytest.raises(InputError, match="'dog' is not one of the network's 2 classes; known are ant, bee"):
        evaluate(save_network(tmp_path / "v", classes=("ant", "bee")), options)


def test_of_three_classes_no_top_5_error_is_told(tmp_path: Path, shown: Shown) -> None:
    data = write_images(tmp_path / "data", ("ant", "dog", "gnu"), train=1, val=1)
    weights = save_network(tmp_path / "w", classes=("ant", "dog", "gnu"))
    folder = ("--dataset", "folder", "--data-dir", data)
    for said in (shown("evaluate", weights, *folder).out, shown("ensemble", weights, weights, *folder).out):
        assert "top-1 error" in said
        assert "top-5 error" not in said


def test_classes_without_names_say_how_to_name_them(tmp_path: Path) -> None:
    torch.save(build_model("resnet18", classes=3).state_dict(), tmp_path / "theirs.pth")
    import_weights(tmp_path / "theirs.pth", "resnet18", tmp_path / "w")
    data = write_images(tmp_path / "data", ("ant", "bee", "cat"), train=3, val=3)
    with pytest.raises(InputError, match=r"have no names but 0 to 2.*--classes"):
        evaluate(tmp_path / "w", EvaluationOptions("folder", "test", data))


def test_another_dataset_is_not_looked_for_among_a_runs_own_images(
    trained_on_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be downloaded there, and be one of the classes from then on."""
    asked = []

    def load(name: str, split: str, data_dir: Path | None) -> Any:
        asked.append(data_dir)
        raise InputError("not here")

    monkeypatch.setattr("residual.inference.evaluation.load_dataset", load)
    sentence_of(lambda: evaluate(trained_on_images, EvaluationOptions("cifar10")))
    assert asked == [None]


@pytest.mark.parametrize("name", ["cifar_resnet8", "resnet18"])
def test_the_size_that_a_network_was_trained_on_changes_nothing(name: str, tmp_path: Path) -> None:
    weights = load_weights(save_network(tmp_path / "w", name, mean=torch.zeros(3)))
    for view, larger in (((224, 232), (448, 464)), ((224, 256), (112, 128)), ((32, 32), (64, 64))):
        weights.config["view"] = {"crop": view[0], "side": view[1]}
        for side, expected in ((None, view), (view[0], view), (larger[0], larger)):
            views = views_for(weights, size=side)
            assert (views.crop, views.sides) == (expected[0], expected[1:])
    # A run on a folder has seen parts of images, of whatever network.
    del weights.config["view"]
    weights.config["recipe"] = {"data": {"folder": {"size": 64}}}
    for side in (None, 64):
        assert views_for(weights, size=side).sides == (73,)


def test_the_training_part_of_a_dataset_lacks_what_was_held_out(tmp_path: Path) -> None:
    weights = save_network(tmp_path / "w", classes=DIGITS, mean=torch.zeros(1, 8, 8))
    config = json.loads((weights / "config.json").read_text())
    recipe = override(find("digits-resnet20"), ["data.validation=1400"])
    (weights / "config.json").write_text(json.dumps(config | {"recipe": recipe.model_dump(mode="json")}))
    options = EvaluationOptions(split="train")
    said: list[str] = []
    assert evaluate(weights, EvaluationOptions(), device="cpu", tell=said.append).metrics.images == 359
    assert said == []
    assert evaluate(weights, options, device="cpu", tell=said.append).metrics.images == 38
    assert said == [f"{weights} has learned from these images, so the errors say little of other images"]
    for wrong in ({"validation": "some"}, {"split_seed": "a"}, {"folder": {"size": 0}}):
        data = recipe.model_dump(mode="json")["data"] | wrong
        (weights / "config.json").write_text(json.dumps(config | {"recipe": {"data": data}}))
        assert "config.json is damaged" in sentence_of(lambda: evaluate(weights, options, device="cpu"))


def test_a_split_and_a_protocol_that_there_are_not(trained_on_images: Path, images: Path) -> None:
    def said(**asked: Any) -> str:
        return sentence_of(lambda: residual.evaluate(trained_on_images, images, device="cpu", **asked))

    assert said(split="val") == (
        "there is no split 'val' to test on; known are train, test (of a folder, test is its val)"
    )
    assert said(views="ten_crop") == "there are no views 'ten_crop'; did you mean ten-crop?"


def test_images_that_are_too_small_for_the_network(images: Path, tmp_path: Path, refused: Refused) -> None:
    weights = save_network(tmp_path / "w", "cifar_nin", classes=("ant", "bee", "cow"), mean=torch.zeros(3))
    words = ("evaluate", weights, "--dataset", "folder", "--data-dir", images)
    for asked in (("--size", "3"), ("--crop", "3"), ("--views", "multi-scale", "--scales", "32,3")):
        assert f"{weights} cannot take images of 3 x 3 pixels; they are too small" in refused(*words, *asked)


@pytest.mark.slow
def test_committed_weights_have_the_recorded_error(published_cifar10: Path) -> None:
    run = ROOT / "results" / "cifar10" / "resnet20-4000-iterations"
    recorded = results_of(run)["test"]
    measured = evaluate(run, EvaluationOptions("cifar10", "test", published_cifar10)).metrics
    assert measured.images == recorded["images"] == 10_000
    # A score that two processors round apart may change an image's class.
    assert measured.top1_error == pytest.approx(recorded["top1_error"], abs=0.05)
