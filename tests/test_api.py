"""From Python as from the command line."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from conftest import (
    BEGUN,
    ROOT,
    SMALL,
    TINY,
    environment,
    results_of,
    save_network,
    sentence_of,
    set_options,
    smooth_image,
    tensors_of,
)

import residual
from residual.distributed import asked_threads
from residual.inference.evaluation import EvaluationOptions
from residual.recipes import DetectionRecipe, Recipe, find, override


def values(settings: list[str]) -> dict[str, str]:
    """Return settings of the command as Python has them."""
    import yaml

    return {key: yaml.safe_load(value) for key, _, value in (setting.partition("=") for setting in settings)}


@pytest.fixture(scope="module")
def tiny() -> object:
    settings = [word for word in TINY[1:] if word != "--set"]
    return residual.recipe("digits-resnet20", values(settings) | {"schedule.iterations": 20})


def test_all_is_shown_and_nothing_is_imported_before_it_is_asked_for(tmp_path: Path) -> None:
    """PyTorch takes two seconds, and torchvision as long again, which images in memory do not need."""
    code = (
        "import sys, residual; assert set(residual.__all__) <= set(dir(residual));"
        "assert 'torch' not in sys.modules;"
        "from residual.__main__ import main; main();"
        "assert 'torch' in sys.modules; assert 'torchvision' not in sys.modules;"
        "[getattr(residual, name) for name in residual.__all__]; import residual.reproduce.study;"
        "assert callable(residual.reproduce); assert residual.train.__module__ == 'residual.api'"
    )
    settings = set_options(["schedule.iterations=2", "evaluate_every=2"])
    arguments = ["train", "digits-resnet20", *settings, "--out", str(tmp_path / "run")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment(), timeout=120)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        residual.trian  # noqa: B018


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        (["train", "nosuch"], "torch"),
        (["train", "digits-resnet20", "--set", "nosuch=1"], "torch"),
        (["evaluate", "nosuch"], "torchvision"),
    ],
)
def test_a_refusal_does_not_wait_for_what_it_has_no_need_of(words: list[str], unneeded: str) -> None:
    code = (
        "import sys; from residual.__main__ import main\n"
        "try: main()\n"
        f"finally: assert {unneeded!r} not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment(), timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert "nosuch" in done.stderr


def test_what_functions_return_is_described() -> None:
    described = re.findall(r"^::: [\w.]+\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    for function in filter(inspect.isfunction, (getattr(residual, name) for name in residual.__all__)):
        returned = get_type_hints(function)["return"]
        for kind in get_args(returned) or (returned,):
            assert not getattr(kind, "__module__", "").startswith("residual.") or kind.__name__ in described


def test_recipes_with_values_changed() -> None:
    changed = residual.recipe(
        "finetune", {"data.validation": 0.2, "schedule.drops": [0.5]}, epochs=5, lr=1e-5, batch=8
    )
    asked = [
        "data.validation=0.2",
        "schedule.drops=[0.5]",
        "schedule.epochs=5",
        "schedule.learning_rate=0.00001",
    ]
    assert changed == override(find("finetune"), [*asked, "batch.size=8"])
    assert residual.recipe("imagenet-resnet18", {"schedule.plateau": None}).schedule.plateau is None
    assert isinstance(residual.recipe("voc-finetune"), DetectionRecipe)
    assert "did you mean schedule.learning_rate?" in sentence_of(
        lambda: residual.recipe("finetune", {"lr": 1})
    )
    said = sentence_of(lambda: residual.recipe("finetune", ["batch.size=8"]))  # type: ignore[arg-type]
    assert said == """settings are values by key, as {"batch.size": 32}, not ['batch.size=8']"""
    both = sentence_of(lambda: residual.recipe("finetune", {"batch.size": 8}, batch=8))
    assert both == "batch and 'batch.size' say the same; leave one of them out"
    both = sentence_of(lambda: residual.recipe("finetune", {"schedule.iterations": 8}, epochs=1))
    assert both == "epochs and 'schedule.iterations' say the same; leave one of them out"
    assert "no recipe 'finetun'" in sentence_of(lambda: residual.recipe("finetun"))


def test_values_that_recipes_can_hold() -> None:
    for name in ("weights/\N{ROCKET}", "weights/na\u00efve", "weights/\udce9"):
        for given in (name, Path(name)):
            changed = residual.recipe("finetune", {"model.weights": given})
            assert isinstance(changed, Recipe)
            assert changed.model.weights == name
    for value, kind in ((object(), "object"), (b"weights", "bytes"), (torch.ones(2), "Tensor")):
        said = sentence_of(lambda: residual.recipe("finetune", {"model.weights": value}))  # noqa: B023
        assert said.startswith(f"'model.weights' has a {kind}, which no recipe can hold: ")


def test_numbers_of_numpy_are_numbers() -> None:
    changed = residual.recipe("finetune", {"seed": np.int64(3)}, lr=np.float32(0.25), batch=np.int32(8))  # type: ignore[arg-type]
    assert changed == residual.recipe("finetune", {"seed": 3}, lr=0.25, batch=8)


def test_a_file_with_a_recipes_name_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("finetune", "voc-finetune", "mine"):
        (tmp_path / name).write_text(find("digits-plain20").to_yaml(), encoding="utf-8")
    assert residual.recipe("finetune") == find("finetune")
    assert isinstance(residual.recipe("voc-finetune"), DetectionRecipe)
    assert residual.recipe("mine") == find("digits-plain20")


def test_a_recipe_in_a_file_of_either_kind(tmp_path: Path) -> None:
    for name in ("digits-plain20", "voc-finetune"):
        file = tmp_path / f"{name}.yaml"
        file.write_text(residual.recipe(name).to_yaml(), encoding="utf-8")
        assert residual.recipe(file) == residual.recipe(name)


def test_a_run_and_what_it_has(
    tiny: residual.FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = residual.train(tiny, device="cpu")
    assert run.path == Path("runs/digits-resnet20")
    assert run.results == results_of(run.path)
    assert [line["iteration"] for line in run.curve] == [10, 20]
    assert run.curve[-1]["test"]["top1_error"] == run.results["test"]["top1_error"]
    [best, *_] = run.load("cpu").predict(smooth_image())[0]
    assert best.name in "0123456789"
    page = run.report("cpu")
    assert page == run.path / "report.html"
    assert "digits-resnet20" in page.read_text(encoding="utf-8")
    found = residual.evaluate(run.path, device="cpu")
    assert found.metrics.loss == run.results["test"]["loss"]
    assert "holds a run already" in sentence_of(lambda: residual.train(tiny))
    assert residual.train(None, out=run.path, resume=True) == run
    assert "name a recipe" in sentence_of(lambda: residual.train(None))


def test_images_of_ones_own(images: Path, tmp_path: Path) -> None:
    weights = save_network(tmp_path / "weights", mean=torch.rand(3))
    recipe = residual.recipe("finetune", values(SMALL))
    run = residual.train(recipe, str(images), str(weights), out=tmp_path / "run", device="cpu")
    network = run.load("cpu")
    assert network.classes == ("ant", "bee", "cow")
    said = sentence_of(lambda: residual.evaluate(network))  # type: ignore[arg-type]
    assert said.startswith("a Network is no path; name a folder")
    assert run.results["validation"]["images"] == 8
    # Fine-tuning has moved the weights, and not far.
    moved = tensors_of(run.path)["conv1.weight"] - tensors_of(tmp_path)["conv1.weight"]
    assert 0 < moved.abs().max() < 0.1
    said = sentence_of(lambda: residual.train(recipe, tmp_path / "none", weights, out=tmp_path / "other"))
    assert "none" in said


def test_a_detector(begun_detector: Path, few_shapes: Path) -> None:
    found = residual.evaluate(begun_detector, few_shapes, device="cpu")
    assert len(found.detections) == 5
    assert "views is for classifiers" in sentence_of(
        lambda: residual.evaluate(begun_detector, few_shapes, views="center")
    )
    assert len(residual.evaluate(begun_detector, few_shapes, split="train", device="cpu").detections) == 10
    assert "there is no split" in sentence_of(
        lambda: residual.evaluate(begun_detector, few_shapes, split="x")
    )
    assert residual.recipe("voc-finetune", values(BEGUN)).name == "shapes"
    run = residual.FinishedRun(begun_detector, {})
    assert run.load("cpu", "bfloat16").precision == "bfloat16"
    assert "no precision 'half'" in sentence_of(
        lambda: residual.evaluate(begun_detector, few_shapes, precision="half")
    )


def test_what_was_changed_of_a_recipe_is_not_lost_to_a_detectors_weights(
    begun_detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the command line: weights first, and settings after them."""
    begun = []
    monkeypatch.setattr("residual.api.train_run", lambda recipe, *_, **__: begun.append(recipe))
    changed = {"data.longer_side": 700, "detector.anchor_sizes": [16.0, 32.0], "detector.max_detections": 7}
    residual.train(residual.recipe("voc-finetune", changed), weights=begun_detector, out="nowhere")
    recipe = begun[-1]
    assert recipe.detector.anchor_sizes == (16, 32)
    assert (recipe.data.shorter_side, recipe.data.longer_side) == (48, 700)
    assert recipe.detector.max_detections == 7
    assert recipe.detector.backbone.weights
    # Whatever the recipe is called, and though it is what the recipe has: the detector has 48.
    settings = {"name": "mine", "data.shorter_side": 600, "data.longer_side": 700}
    residual.train(residual.recipe("voc-finetune", settings), weights=begun_detector, out="nowhere")
    assert (begun[-1].name, begun[-1].data.shorter_side, begun[-1].data.longer_side) == ("mine", 600, 700)
    # And of a file what differs from the recipe of its name, besides what is said.
    changed = residual.recipe("voc-finetune", {"data.shorter_side": 64, "data.longer_side": 96})
    (tmp_path / "my.yaml").write_text(changed.to_yaml())
    residual.train(residual.recipe(tmp_path / "my.yaml", {"seed": 1}), weights=begun_detector, out="nowhere")
    assert (begun[-1].seed, begun[-1].data.shorter_side, begun[-1].data.longer_side) == (1, 64, 96)
    # What a run was begun from is no change: other weights are others.
    again = save_network(tmp_path / "other", "cifar_resnet14")
    residual.train(residual.recipe("finetune"), weights=save_network(tmp_path / "one"), out="nowhere")
    residual.train(begun[-1], weights=again, out="nowhere")
    assert begun[-1].model.weights == str(again.resolve())
    assert begun[-1].model.name == "cifar_resnet14"


def test_without_pycocotools_a_detectors_other_precision_is_measured(
    begun_detector: Path, few_shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("residual.inference.detector.has_pycocotools", lambda: False)
    said: list[str] = []
    found = residual.evaluate(begun_detector, few_shapes, device="cpu", tell=said.append)
    assert found.coco is None
    assert 0 <= found.mean_ap <= 1
    assert said == [
        "COCO AP needs the package pycocotools: pip install pycocotools; without it the other one is "
        "measured alone"
    ]


def test_a_program_draws_and_computes_as_before(tmp_path: Path) -> None:
    """After training here, and after an experiment on fewer threads."""
    threads, asked = torch.get_num_threads(), asked_threads()
    before = torch.get_rng_state()
    short = {"schedule.iterations": 2, "evaluate_every": 2, "model.name": "cifar_resnet8"}
    residual.train(residual.recipe("digits-resnet20", short), out=tmp_path / "run", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    residual.reproduce("table6", depths=[20], out=tmp_path, no_train=True, threads=threads + 1)
    assert (torch.get_num_threads(), asked_threads()) == (threads, asked)


def test_what_is_left_out_of_a_detectors_test_is_told(
    begun_detector: Path, few_shapes: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(few_shapes, tmp_path / "data")
    first, second, *_ = sorted((data / "JPEGImages").glob("test*.png"))
    first.write_bytes(first.read_bytes()[:100])
    (data / "Annotations" / second.with_suffix(".xml").name).write_text("<annotation>")
    said: list[str] = []
    found = residual.evaluate(begun_detector, data, device="cpu", tell=said.append)
    assert list(found.unusable.values()) == [sentence for sentence in said if first.name in sentence] != []
    assert second.stem in "".join(found.dataset.notes)
    assert said == [*found.dataset.notes, *found.unusable.values()]


def test_an_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no experiment 'table1'; the experiment is called complexity" in sentence_of(
        lambda: residual.reproduce("table1")
    )
    assert "no experiment 'table13'" in sentence_of(lambda: residual.reproduce("table13"))
    strange = sentence_of(lambda: residual.reproduce("report", out=tmp_path, networks=["resnet18"]))
    assert "report has no option 'networks'" in strange
    used: list[int] = []
    monkeypatch.setattr("residual.distributed.use_threads", used.append)
    out = residual.reproduce("table6", depths=[20], out=tmp_path, no_train=True, threads=3)
    assert used == [3]
    assert out == tmp_path
    assert "Table 6" in capsys.readouterr().out
    # What is a text on the command line is what it is in Python: numbers, lists of them, paths.
    residual.reproduce("table6", depths=[20], seeds=2, out=tmp_path, no_train=True)
    assert "cifar10-resnet20/seed1" in capsys.readouterr().err
    residual.reproduce("table9", scales=[200, 400], out=tmp_path, no_train=True)
    residual.reproduce("report", imagenet=str(tmp_path), detection=str(tmp_path), out=str(tmp_path))
    nowhere = {"data": tmp_path, "out": tmp_path / "new"}
    for experiment, option in (("table8", "weights_resnet101"), ("localization", "weights")):
        said = sentence_of(lambda: residual.reproduce(experiment, **nowhere, **{option: "nowhere"}))  # noqa: B023
        assert "there is no folder nowhere" in said


def test_options_of_experiments_are_python_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for name in ("detection.table", "layer_studies.signals"):
        monkeypatch.setattr(f"residual.reproduce.{name}", lambda *a, **k: called.append((a, k)))
    monkeypatch.setattr("residual.reproduce.table6.table6", lambda *a: called.append((a, {})))
    monkeypatch.setenv("HOME", str(tmp_path))
    options = {"scales": (400, 600), "weights_resnet101": "~/w", "ensemble": 3, "networks": "coco-vgg16"}
    assert residual.reproduce("table9", data=tmp_path, settings={"seed": 1}, **options) == Path(
        "runs/detection"
    )
    ((study, number, networks), chosen) = called.pop()
    assert (study.data_dir, study.settings, number, networks) == (tmp_path, ["seed=1"], 9, ["coco-vgg16"])
    weights = {"resnet101": tmp_path / "w"}
    assert chosen == {"weights": weights, "members": 3, "scales": (400, 600)}
    residual.reproduce("table6", seeds=5, depths=(56, 20), no_train=False, data_dir="~/data")
    (study, depths, seeds, *_), _ = called.pop()
    assert (study.data_dir, study.train, depths, seeds) == (tmp_path / "data", True, [20, 56], range(5))
    for name in ("signals-imagenet", "signals_imagenet"):
        assert residual.reproduce(name, dataset="tiny-imagenet") == Path("runs/tiny-imagenet")
    assert len(called) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": "tiny"}, "table2: Invalid value for '--dataset': "),
        ({"minutes": -5}, "table2: Invalid value for '--minutes'"),
        ({"threads": 0}, "table2: Invalid value for '--threads'"),
        ({"network": "resnet18"}, "table2 has no option 'network'; did you mean networks?"),
        ({"more": ["resnet18"]}, "table2 has no option 'more'"),
        ({"settings": ["seed=1"]}, "settings are values by key, as "),
        ({"networks": [18]}, "--networks 18: this experiment has plain18"),
    ],
)
def test_wrong_options_of_an_experiment(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    said = sentence_of(lambda: residual.reproduce("table2", out=tmp_path, no_train=True, **options))
    assert said.startswith(words)


def test_paths_are_text_or_paths_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_network(tmp_path / "w")
    assert len(residual.load("~/w", "cpu").classes) == 10
    for expected in (residual.load_detector, residual.load_localizer):
        assert f"{tmp_path}/w holds a classifier" in sentence_of(lambda: expected("~/w"))  # noqa: B023
    assert f"{tmp_path}/w holds no run to resume" in sentence_of(lambda: residual.finish("~/w"))


def test_sides_are_whole_numbers_of_which_each_is_read() -> None:
    for options, words in (
        ({"size": 0}, "size is a whole number of at least 1, not 0"),
        ({"crop": 16.5}, "crop is a whole number"),
        ({"scales": "36"}, "a scale is a whole number of at least 1, not '3'"),
        ({"scales": [36.5]}, "a scale is a whole number"),
        ({"size": 96, "crop": 32, "scales": [36]}, "leave it out"),
        ({"size": 96, "views": "multi-scale", "scales": [36]}, "leave it out"),
    ):
        assert words in sentence_of(lambda: EvaluationOptions(**options))  # type: ignore[arg-type]  # noqa: B023
    said = sentence_of(lambda: residual.load_detector("nothing", scales="400"))
    assert said == "a scale is a whole number of at least 16, not '4'"
    assert EvaluationOptions(scales=36).scales == (36,)  # type: ignore[arg-type]
    assert EvaluationOptions(size=96, scales=[110]).scales == (110,)
