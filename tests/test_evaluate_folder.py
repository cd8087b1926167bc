"""``residual evaluate --dataset folder`` and ``residual ensemble``, held against torchvision's evaluation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from residual import InputError, build_model
from residual.cli import main
from residual.data.synsets import imagenet_classes
from residual.evaluation.scores import load_scores
from residual.models.preprocessing import Preprocessing
from residual.models.weights import import_weights, load_weights, save_weights
from residual.run_evaluation import Options, evaluate, score_ensemble

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Broad coloured patches of random colours."""
    coarse = np.random.default_rng(seed).integers(256, size=(6, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def make_folder(root: Path, classes: tuple[str, ...], each: int = 2, shorter: int = 40) -> Path:
    """Write ``root/{train,val}/CLASS/*.png`` of several shapes."""
    for split in ("train", "val"):
        for k, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for n in range(each):
                size = (shorter + 9 * n, shorter) if (k + n) % 2 else (shorter, shorter + 5 * n)
                picture(100 * k + n, *size).save(root / split / name / f"{n}.png")
    return root


def make_weights(folder: Path, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_weights(
        folder,
        build_model("cifar_resnet8", classes=len(classes)),
        name="cifar_resnet8",
        options={},
        preprocessing=Preprocessing(torch.rand(3, 32, 32)),
        classes=classes,
    )
    return folder


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["residual", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(("name", "variant"), [("resnet50", "v1.5"), ("vgg16", None)])
def test_torchvisions_weights_give_torchvisions_results(
    name: str,
    variant: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    theirs: Any = getattr(torchvision.models, name)(num_classes=1000).eval()
    if name == "resnet50":
        # A new network's BN has statistics that could be left out unnoticed.
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_var, 0.5, 2)
                torch.nn.init.normal_(module.running_mean, std=0.1)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    wordnet_ids = tuple(imagenet_classes()[k][0] for k in (574, 0, 217))
    make_folder(tmp_path / "data", wordnet_ids, each=1, shorter=300)
    chosen = ("--variant", variant) if variant else ()
    assert (
        command(
            monkeypatch,
            *("import", tmp_path / "theirs.pth", "--model", name, *chosen),
            *("--classes", "imagenet", "--out", tmp_path / "w"),
        )
        == 0
    )
    capsys.readouterr()
    saved = tmp_path / "scores.safetensors"
    assert (
        command(
            monkeypatch,
            *("evaluate", tmp_path / "w", "--dataset", "folder", "--data-dir", tmp_path / "data"),
            *("--json", "--save-scores", saved),
        )
        == 0
    )
    shown = json.loads(capsys.readouterr().out)

    found = load_scores(saved)
    preset = torchvision.transforms._presets.ImageClassification(crop_size=224, resize_size=256)
    targets = {wnid: k for k, (wnid, _) in enumerate(imagenet_classes())}
    wrong = {1: 0, 5: 0}
    for row, target, picture_id in zip(found.probabilities, found.targets, found.ids, strict=True):
        file = tmp_path / "data" / "val" / Path(picture_id).parent.name / "0.png"
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
def test_a_folder_is_tested_as_one_picture_at_a_time(protocol: Any, tmp_path: Path) -> None:
    data, weights = make_folder(tmp_path / "data", CLASSES, each=5), make_weights(tmp_path / "w")
    options = Options("folder", "test", data, protocol, scales=(36, 44))
    found = evaluate(weights, options, keep_scores=True).scores
    assert found is not None
    assert len(found) == 35
    saved = load_weights(weights)
    rows = []
    for file in sorted((data / "val").rglob("*.png")):
        image = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_folder(tmp_path / "data", ("ant", "dog", "gnu"), each=1)
    order = ("gnu", "fox", "elk", "dog", "cat", "bee", "ant")
    found = evaluate(make_weights(tmp_path / "w", order), Options("folder", "test", data), keep_scores=True)
    assert found.scores is not None
    assert found.scores.targets.tolist() == [6, 3, 0]
    assert found.scores.classes == order
    assert command(monkeypatch, "evaluate", tmp_path / "w", "--dataset", "folder", "--data-dir", data) == 0
    shown = capsys.readouterr()
    assert "3 of the network's 7 classes, matched by name" in shown.err
    assert "top-1 error" in shown.out
    with pytest.raises(InputError, match="'dog' is none of the network's 2 classes; known are ant, bee"):
        evaluate(make_weights(tmp_path / "v", ("ant", "bee")), Options("folder", "test", data))


def test_damaged_pictures_are_skipped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, weights = make_folder(tmp_path / "data", CLASSES), make_weights(tmp_path / "w")
    whole = (data / "val" / "cat" / "0.png").read_bytes()
    (data / "val" / "cat" / "0.png").write_bytes(whole[: len(whole) // 2])
    saved = tmp_path / "a.safetensors"
    arguments = ("evaluate", weights, "--dataset", "folder", "--data-dir", data)
    assert command(monkeypatch, *arguments, "--save-scores", saved, "--json") == 0
    shown = capsys.readouterr()
    assert "cat/0.png" in shown.err
    assert json.loads(shown.out)["skipped"] == 1
    assert json.loads(shown.out)["images"] == len(load_scores(saved)) == 13
    assert not any("cat/0.png" in name for name in load_scores(saved).ids)
    for file in data.rglob("*.png"):
        file.write_bytes(b"nothing")
    assert command(monkeypatch, *arguments) == 2
    assert "no picture" in capsys.readouterr().err


def test_ensembles_of_runs_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_folder(tmp_path / "data", CLASSES)
    a, b = make_weights(tmp_path / "a", seed=1), make_weights(tmp_path / "b", CLASSES[::-1], seed=2)
    folder = ("--dataset", "folder", "--data-dir", data)
    saved = tmp_path / "a.safetensors"
    assert command(monkeypatch, "evaluate", a, *folder, "--save-scores", saved) == 0
    capsys.readouterr()
    assert command(monkeypatch, "ensemble", saved, b, *folder, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    members, together = score_ensemble([a, b], Options("folder", "test", data))
    assert [entry["member"] for entry in shown["members"]] == [str(saved), str(b)]
    assert shown["members"][1]["loss"] == pytest.approx(members[1][1].loss, rel=1e-5)
    assert shown["ensemble"]["loss"] == pytest.approx(together.metrics().loss, rel=1e-5)
    scores = [evaluate(w, Options("folder", "test", data), keep_scores=True).scores for w in (a, b)]
    mean = (scores[0].probabilities + scores[1].probabilities.flip(1)) / 2  # type: ignore[union-attr]
    torch.testing.assert_close(together.probabilities, mean)
    assert (
        command(monkeypatch, "ensemble", saved, b, *folder, "--save-scores", tmp_path / "c.safetensors") == 0
    )
    assert "ensemble of 2, 14 images" in capsys.readouterr().out
    torch.testing.assert_close(load_scores(tmp_path / "c.safetensors").probabilities, mean)

    other = make_folder(tmp_path / "other", CLASSES, each=1)
    assert command(monkeypatch, "ensemble", saved, b, "--dataset", "folder", "--data-dir", other) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert f"{b} lacks the picture" in sentence
    assert "and 6 more" in sentence


def test_ensembles_of_small_data_sets(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for name in ("a", "b"):
        save_weights(
            tmp_path / name,
            build_model("cifar_resnet8", in_channels=1),
            name="cifar_resnet8",
            options={"in_channels": 1},
            preprocessing=Preprocessing(torch.rand(1, 8, 8)),
            classes=list("0123456789"),
        )
    plain = evaluate(tmp_path / "a", Options("digits")).metrics
    members, together = score_ensemble([tmp_path / "a", tmp_path / "b"], Options("digits"))
    assert len(together) == plain.images == 359
    for value in ("loss", "top1_error", "top5_error"):
        assert getattr(members[0][1], value) == pytest.approx(getattr(plain, value), rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "w", "--dataset", "folder"], "--data-dir"),
        (["evaluate", "w", "--dataset", "folder", "--data-dir", "nowhere"], "nowhere"),
        (["evaluate", "w", "--dataset", "digits", "--views", "ten-crop"], "tested whole"),
        (["evaluate", "w", "--dataset", "folder", "--data-dir", "data", "--crop", "99"], "does not fit"),
        (["evaluate", "w", "--dataset", "folder", "--data-dir", "data", "--scales", "a,b"], "--scales a,b"),
        (["evaluate", "w", "--dataset", "folder", "--data-dir", "data", "--scales", "0"], "at least 1"),
        (
            ["evaluate", "w", "--dataset", "folder", "--data-dir", "data", "--save-scores", "w"],
            ".safetensors",
        ),
        (
            [
                *("evaluate", "w", "--dataset", "folder", "--data-dir", "data"),
                *("--save-scores", "s.safetensors"),
            ],
            "s.safetensors exists already",
        ),
        (["ensemble", "s.safetensors"], "damaged or no file of scores"),
        (["ensemble", "nowhere"], "nowhere"),
        (["ensemble", "w"], "--dataset"),
        (
            [
                *("evaluate", "w", "--dataset", "folder", "--data-dir", "data"),
                *("--views", "multi-scale", "--crop", "9"),
            ],
            "leave the crop out",
        ),
        (["import", "theirs.pth", "--model", "vgg16", "--classes", "nowhere", "--out", "v"], "nowhere"),
    ],
    ids=lambda value: "-".join(value)[-40:] if isinstance(value, list) else None,
)
def test_wrong_input(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_weights(Path("w"))
    make_folder(Path("data"), CLASSES, each=1)
    Path("s.safetensors").write_text("precious")
    assert command(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert shown.err.count("\n") == 1
    assert Path("s.safetensors").read_text() == "precious"


def test_classes_without_names_say_how_to_name_them(tmp_path: Path) -> None:
    torch.save(build_model("resnet18", classes=3).state_dict(), tmp_path / "theirs.pth")
    import_weights(tmp_path / "theirs.pth", "resnet18", tmp_path / "w")
    data = make_folder(tmp_path / "data", ("ant", "bee", "cat"), each=1)
    with pytest.raises(InputError, match=r"have no names but 0 to 2.*--classes"):
        evaluate(tmp_path / "w", Options("folder", "test", data))
