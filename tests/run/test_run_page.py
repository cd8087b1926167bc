"""The page of a run: of a finished one, a running one, a classifier's, a detector's."""

import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Refused, Shown, results_of
from PIL import Image

from residual import InputError, run
from residual.analysis.figures import ErrorCurve
from residual.data.boxes import AnnotatedImage, BoxDataset
from residual.detection.average_precision import Detections, mean_ap, voc_ap
from residual.detection.boxes import load_boxes
from residual.detection.testing import load_detections
from residual.evaluation.scores import load_scores
from residual.models.statedict import write_state
from residual.models.weights import load_weights
from residual.recipes import DetectionRecipe, find, override, read
from residual.run import run as runs
from residual.run.box_findings import localizer_findings
from residual.run.page import draw_curves, panels_of, write_page
from residual.training.folder import RunFolder


def text_of(page: Path) -> str:
    """Return a page's words, without tags and the style."""
    source = re.sub(r"<style>.*?</style>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", source).replace("&nbsp;", " ").split())


@pytest.fixture
def copied(trained_on_images: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_on_images, tmp_path / "copied"))


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("the network was tested once more")


def test_a_run_ends_with_its_page_and_the_page_can_be_made_again_without_testing(
    copied: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = copied / "report.html"
    assert page.is_file()
    monkeypatch.setattr("residual.run.sources.evaluate", never)
    page.unlink()
    assert f"The page: {page}" in shown("report", copied).out
    results = results_of(copied)["validation"]
    scores = load_scores(copied / "scores.safetensors")
    # One network, one dataset, one view: one number.
    assert scores.metrics().top1_error == results["top1_error"]
    wrong = round(results["top1_error"] * results["images"] / 100)
    said = text_of(page)
    assert f"{wrong} of {results['images']} images" in said
    assert f"{results['top1_error']:.2f} %" in said
    assert "top-5 error" not in said  # of three classes
    assert "; the learning rate followed it." in said  # as ImageNet's recipes have it
    images = json.loads((copied / "environment.json").read_text())[0]["data"]["images"]
    for split, name in (("train", "training"), ("validation", "validation")):
        assert re.search(rf"\b{name} {images[split]} \d", said)
    session = json.loads((copied / "environment.json").read_text())[0]
    for part in (session["commit"] or "unknown", session["device"], "imagenet-resnet18", "shorter_side"):
        assert part in said
    source = page.read_text(encoding="utf-8")
    assert source.count('<img src="data:image/') == min(wrong, 24)
    assert not re.search(r'<script|<link|url\((?!#)|src="(?!data:)', source)
    assert source.count("<svg") == source.count("</svg>") == 2


def test_a_page_does_not_tell_where_its_makers_home_is(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(copied.parent))
    recipe = override(read(copied / "recipe.yaml"), [f"model.weights={copied.parent}/weights"])
    written = write_page(RunFolder(copied), recipe, 8, None, "").read_text()
    assert "<code>residual report ~/copied</code>" in written
    assert "weights: ~/weights" in written
    assert str(copied.parent) not in written


def test_a_run_that_kept_no_scores_is_tested_and_then_has_them(copied: Path, trained_on_images: Path) -> None:
    (copied / "scores.safetensors").unlink()
    run.report(copied, device="cpu")
    again, before = (load_scores(p / "scores.safetensors") for p in (copied, trained_on_images))
    assert again.probabilities.equal(before.probabilities)
    assert again.ids == before.ids


def test_a_run_is_not_tested_once_more_on_other_classes(copied: Path, tmp_path: Path) -> None:
    """They would have the names of those that it learned."""
    data = shutil.copytree(trained_data(copied), tmp_path / "data")
    for part in ("train", "val"):
        first, *_ = sorted(path for path in (data / part).iterdir() if path.is_dir())
        first.rename(first.with_name(f"z{first.name}"))
    (copied / "scores.safetensors").unlink()
    said = text_of(run.report(copied, data_dir=data, device="cpu"))
    assert "was trained on other classes than there are now in" in said
    assert not (copied / "scores.safetensors").exists()


def test_a_run_whose_scores_are_no_numbers_has_its_page(copied: Path) -> None:
    weights = load_weights(copied)
    for parameter in weights.model.parameters():
        parameter.data.fill_(3e38)  # weights that are numbers, whose products are none
    write_state(weights.model, copied / "weights" / "model.safetensors")
    (copied / "scores.safetensors").unlink()
    for _ in range(2):
        assert "are no numbers (NaN)" in text_of(run.report(copied, device="cpu"))
    assert not (copied / "scores.safetensors").exists()


def test_images_of_the_same_names_are_not_shown_as_those_that_were_tested(
    copied: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(trained_data(copied), tmp_path / "data")
    assert "not shown" not in text_of(run.report(copied, data_dir=data, device="cpu"))
    first, second, *_ = sorted((data / "val").rglob("*.png"))
    first.write_bytes(second.read_bytes())
    said = text_of(run.report(copied, data_dir=data, device="cpu"))
    assert "scores.safetensors is of other images or classes than there are now in" in said


def test_without_the_data_and_before_there_are_weights_the_page_says_so(copied: Path, tmp_path: Path) -> None:
    environment = json.loads((copied / "environment.json").read_text())
    environment[0]["data_dir"] = str(tmp_path / "gone")
    del environment[0]["instructions"]  # as earlier versions wrote it
    (copied / "environment.json").write_text(json.dumps(environment))
    said = text_of(run.report(copied, device="cpu"))
    assert "name the folder" in said
    assert "8 iterations" in said

    shutil.rmtree(copied / "weights")
    for name in ("results.json", "scores.safetensors"):
        (copied / name).unlink()
    said = text_of(run.report(copied, data_dir=Path(trained_data(copied)), device="cpu"))
    assert "not complete : 8 of 8 iterations" in said
    assert "top-5 error" not in said  # of three classes, as above
    assert "when there are final weights" in said
    (copied / "metrics.jsonl").unlink()
    assert "Nothing has been measured yet" in text_of(run.report(copied, device="cpu"))


def trained_data(path: Path) -> str:
    """Return the folder of the images by a run's command."""
    command = json.loads((path / "environment.json").read_text())[0]["command"].split()
    return os.path.expanduser(command[command.index("--data-dir") + 1])


def test_drops_that_nobody_knows_are_not_drawn(copied: Path) -> None:
    lines, recipe = RunFolder(copied).metrics(), override(find("finetune"), ["schedule.drops=[0.5,0.75]"])
    known, unknown = ("".join(map(str, draw_curves(lines, recipe, length, 8))) for length in (8, None))
    assert known.count("<svg") == unknown.count("<svg") == 2
    assert known.count("<path") > unknown.count("<path")


def test_drops_at_plateaus_are_where_the_log_has_them(copied: Path) -> None:
    lines = RunFolder(copied).metrics()
    recipe = override(find("imagenet-resnet18"), ["schedule.epochs=90"])
    lines = [line | {"learning_rate": 0.1 / 10**place} for place, line in enumerate(lines)]
    assert len(lines) > 1
    assert "<svg" in str(draw_curves(lines, recipe, None, 8)[0])
    with_drops, without = (
        "".join(
            map(
                str,
                draw_curves(
                    lines if falls else [line | {"learning_rate": 0.1} for line in lines], recipe, None, 8
                ),
            )
        )
        for falls in (True, False)
    )
    assert with_drops.count("<path") > without.count("<path")


def test_what_is_missing_does_not_tell_where_a_home_is(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (copied / "weights").rename(tmp_path / "kept")
    page = runs.report(copied, data_dir=tmp_path / "gone").read_text()
    assert "~/gone" in page
    assert str(tmp_path) not in page


def test_what_is_wrong_with_a_run_is_said(tmp_path: Path, copied: Path, refused: Refused) -> None:
    assert "holds no run" in refused("report", tmp_path / "nowhere")
    assert f"; it holds {copied}; name that one" in refused("report", copied.parent)
    assert f"weights holds weights and no run; name {copied}" in refused("report", copied / "weights")
    shutil.copytree(copied / "weights", tmp_path / "alone")
    assert "alone holds weights and no run; name the folder of" in refused("report", tmp_path / "alone")
    (copied / "scores.safetensors").write_bytes(b"no scores")
    assert "scores.safetensors is damaged" in refused("report", copied)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("the disk is full"), "the disk is full"),
        # What a font, a template or an allocator raises.
        (RuntimeError("no font\nat all"), "RuntimeError: no font"),
        (torch.OutOfMemoryError("CUDA out of memory"), "OutOfMemoryError: CUDA out of memory"),
    ],
)
def test_a_page_that_cannot_be_written_does_not_cost_the_run(
    error: Exception,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: Any) -> Path:
        raise error

    monkeypatch.setattr(runs, "write_page", full)
    settings = ["schedule.iterations=2", "model.name=cifar_resnet8", "evaluate_every=2"]
    out = tmp_path / "my digits"
    found = run.train(override(find("digits-resnet20"), settings), out, device="cpu")
    assert json.loads((out / "results.json").read_text())["test"] == found["test"]
    told = capsys.readouterr().err
    assert f"its page was not written ({said}); make it with: residual report '{out}'" in told


def test_a_loss_that_was_no_number_is_shown_as_none(copied: Path, shown: Shown, tmp_path: Path) -> None:
    """results.json and metrics.jsonl have null for it."""
    lines = [json.loads(line) for line in (copied / "metrics.jsonl").read_text().splitlines()]
    lines[-1]["validation"]["loss"] = None
    (copied / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = results_of(copied)
    results["validation"]["loss"] = None
    (copied / "results.json").write_text(json.dumps(results))
    shown("report", copied)
    error = results["validation"]["top1_error"]
    assert f"{error:.2f} % –" in text_of(copied / "report.html")
    other = shutil.copytree(copied, tmp_path / "other")
    shown("compare", copied, other, "--out", tmp_path / "page.html")
    assert "loss –" in shown("train", "--resume", "--out", copied).out


def test_one_loss_of_a_million_does_not_hide_all_others() -> None:
    def top(training: list[float], held_out: list[float]) -> float:
        loss = ErrorCurve("", "#000000", [1, 2, 3], training, held_out)
        error = ErrorCurve("", "#000000", [1, 2, 3], [1, 1, 1], [90, 80, 70])
        errors, losses = panels_of([(error, loss)], None)
        assert errors.top == 100
        return losses.top

    assert top([2.3, 1.2, 0.4], [919_384.5, 1.5, 0.6]) == 10
    # What is high more than once is what the run was like.
    assert top([0.01, 0.01, 0.01], [2, 4, 8]) == 8
    assert top([2.3, 1e9, 1e12], [2.3, 1e9, math.nan]) == 1e12
    assert top([math.nan] * 3, [math.nan] * 3) == 1


def test_a_detectors_page_shows_what_was_missed_beside_the_truth(
    begun_detector: Path, few_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Path(shutil.copytree(begun_detector, tmp_path / "detector"))
    recipe = read(copied / "recipe.yaml", DetectionRecipe)
    classes = tuple(results_of(copied)["classes"])
    dataset = load_boxes(few_shapes, recipe.data, recipe.data.test, classes)
    found = load_detections(copied / "detections.safetensors", dataset)
    measured = mean_ap(voc_ap(dataset, found, recipe.data.ap_rule))
    assert 100 * measured == pytest.approx(results_of(copied)["test"]["ap50"], abs=1e-9)
    monkeypatch.setattr("residual.run.detection.detect_dataset", never)
    page = run.report(copied, device="cpu")
    said = text_of(page)
    assert "Misses and false alarms" in said
    for name, count in zip(dataset.classes, dataset.counts(), strict=True):
        assert re.search(rf"{name} {count} ", said), name
    images = page.read_text().count('<img src="data:image/jpeg')
    assert images > 0
    assert images % 2 == 0
    # A run that was kept without its weights still says what it reached.
    reached = f"mAP {100 * measured:.2f} % on {len(dataset)} images"
    assert f"{reached} of voc test" in said
    shutil.rmtree(copied / "weights")
    (copied / "detections.safetensors").unlink()
    earlier = results_of(copied)
    del earlier["validation"]  # as earlier versions wrote it
    (copied / "results.json").write_text(json.dumps(earlier))
    said = text_of(run.report(copied, device="cpu"))
    assert f"{reached}." in said
    assert "The final weights are not in the run folder" in said
    assert "listed in left-out.txt" not in said
    (copied / "results.json").write_text(json.dumps(earlier | {"left_out": 3}))
    assert "annotations 3 faults, listed in left-out.txt" in text_of(run.report(copied, device="cpu"))
    few = dataset.images[:-1]
    with pytest.raises(InputError, match="is of other images, classes or boxes than"):
        load_detections(
            begun_detector / "detections.safetensors", type(dataset)(**{**vars(dataset), "images": few})
        )


def test_a_detectors_page_is_about_the_classes_that_it_learned(
    begun_detector: Path, few_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class that sorts first has come in since; and then a box to be found was moved."""
    copied = Path(shutil.copytree(begun_detector, tmp_path / "detector"))
    data = Path(shutil.copytree(few_shapes, tmp_path / "data"))
    before = text_of(run.report(copied, data_dir=data, device="cpu"))
    for file in (data / "Annotations").glob("train*.xml"):
        file.write_text(file.read_text().replace("<name>triangle<", "<name>apple<", 1))
    monkeypatch.setattr("residual.run.detection.detect_dataset", never)
    page = run.report(copied, data_dir=data, device="cpu")
    assert text_of(page) == before
    assert "<img" in page.read_text()
    first = next(f for f in sorted((data / "Annotations").glob("test*.xml")) if "<xmin>" in f.read_text())
    first.write_text(re.sub(r"<xmin>\d+", "<xmin>1", first.read_text(), count=1))
    said = text_of(run.report(copied, data_dir=data, device="cpu"))
    assert "Images and classes are not shown" in said
    assert "is of other images, classes or boxes than voc test now has" in said
    assert "<img" not in page.read_text()
    # By today's annotations, once that is asked for: the file was removed.
    monkeypatch.undo()
    (copied / "detections.safetensors").unlink()
    assert "Misses and false alarms" in text_of(run.report(copied, data_dir=data, device="cpu"))
    assert "apple" not in text_of(page)


def test_an_image_as_thin_as_a_line_is_shown(tmp_path: Path) -> None:
    Image.new("RGB", (600, 1)).save(tmp_path / "line.png")
    box, label, no = (
        torch.tensor([[0.0, 0.0, 600.0, 1.0]]),
        torch.tensor([0]),
        torch.zeros(1, dtype=torch.bool),
    )
    line = AnnotatedImage("line", tmp_path / "line.png", (600, 1), box, label, no, no, torch.ones(1))
    # One that could not be looked at is not among the wrong ones.
    dataset = BoxDataset("imagenet", ("val",), ("line",), (line, line), (), (0,))
    nothing = Detections(torch.empty(0, 4), torch.empty(0), label[:0])
    found = localizer_findings(dataset, [nothing, Detections(box, torch.ones(1), label)])
    wrong, right = found["parts"]
    assert found["images"] == 1
    assert wrong["drawn"] == []
    assert len(right["drawn"]) == 1
    assert right["drawn"][0]["address"].startswith("data:image/jpeg")
