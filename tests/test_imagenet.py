"""Training, testing and reproducing on folders of pictures, with a few small generated ones."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Call, environment, metrics_of
from PIL import Image

from residual import InputError, recipes, run
from residual.data.stream import StreamBatches
from residual.models.weights import load_weights
from residual.recipes import find, override
from residual.reproduce.paper import TABLE2, TABLE3, TABLE4, TABLE5
from residual.run_evaluation import Options, evaluate
from residual.training.checkpoint import Progress
from residual.training.loop import Run
from residual.training.schedule import learning_rate

SETTINGS = [
    "data.folder.size=32",
    "data.folder.shorter_side=[36,48]",
    "batch.size=8",
    "batch.bn_group=4",
    "schedule.iterations=8",
    "schedule.learning_rate=0.02",
    "evaluate_every=4",
    "checkpoint_every=3",
]
SET = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes that differ in colour; thirteen training and eight validation pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for part, count in (("train", 13), ("val", 8)):
        for number in range(count):
            name = ("ant", "bee", "cow")[number % 3]
            noise = random.integers(0, 80, (40 + number, 60, 3))
            noise[..., number % 3] += 150
            path = folder / part / name / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.astype(np.uint8)).save(path)
    return folder


def recipe(name: str = "imagenet-resnet18", *more: str) -> recipes.Recipe:
    return override(find(name), [*SETTINGS, *more])


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "resnet18"
    run.train(recipe(), out, data_dir=pictures, device="cpu")
    return out


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_weights(path).model.state_dict()


def test_a_run_on_a_folder(trained: Path, pictures: Path) -> None:
    results = json.loads((trained / "results.json").read_text())
    assert results["iterations"] == 8
    assert results["validation"]["images"] == 8
    assert (results["train"], results["test"]) == (None, None)
    lines = metrics_of(trained)
    assert [line["iteration"] for line in lines] == [4, 8]
    assert lines[0]["train"]["images"] == 32
    stored = load_weights(trained)
    assert stored.classes == ("ant", "bee", "cow")
    # The mean picture is that of the centres at 256/224 of the size.
    assert stored.preprocessing.mean.shape == (3, 32, 32)
    red = [np.asarray(Image.open(path))[..., 0].mean() for path in (pictures / "train").rglob("*.png")]
    assert stored.preprocessing.mean[0].mean().item() == pytest.approx(np.mean(red) / 255, abs=0.01)
    # The evaluation that users call finds the run's data, and the same errors.
    found = evaluate(trained, Options(), device="cpu")
    assert found.metrics.images == 8
    assert found.metrics.top1_error == results["validation"]["top1_error"]
    assert found.metrics.loss == pytest.approx(results["validation"]["loss"], rel=2e-2)


def test_interrupted_in_mid_epoch_no_picture_is_repeated_or_lost(
    trained: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, list[str]] = {}
    original = StreamBatches.__call__

    def watched(batches: StreamBatches, iteration: int) -> Any:
        if iteration == 5 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise RuntimeError("the power fails")
        seen[iteration] = [batches.index.ids[i] for i in batches.indices(iteration).tolist()]
        return original(batches, iteration)

    monkeypatch.setattr(StreamBatches, "__call__", watched)
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="the power fails"):
        run.train(recipe(), out, data_dir=pictures, device="cpu")
    # The checkpoint is that after 3 iterations, within the second epoch of 13 pictures.
    assert sorted(seen) == [0, 1, 2, 3, 4]
    run.train(None, out, resume=True, device="cpu")
    row = [name for iteration in range(8) for name in seen[iteration]]
    names = {path.relative_to(pictures / "train").as_posix() for path in (pictures / "train").rglob("*.png")}
    assert all(set(row[start : start + 13]) == names for start in (0, 13, 26, 39))
    assert metrics_of(out) == metrics_of(trained)
    assert all(torch.equal(value, weights_of(out)[key]) for key, value in weights_of(trained).items())


def test_two_ranks_compute_what_one_process_computes(pictures: Path, tmp_path: Path) -> None:
    # BN over four values of a 1 x 1 map would magnify the rounding of another order of additions.
    small = ["data.folder.size=64", "data.folder.shorter_side=[64,72]", "batch.bn_group=4"]
    small += ["schedule.learning_rate=0.001", "schedule.iterations=4", "evaluate_every=2"]
    run.train(recipe("imagenet-resnet18", *small), tmp_path / "one", data_dir=pictures, device="cpu")
    more = [word for setting in small for word in ("--set", setting)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *("-m", "residual", "train", "imagenet-resnet18", *SET, *more),
            *("--data-dir", str(pictures), "--out", str(tmp_path / "two")),
        ],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for a, b in zip(metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two"), strict=True):
        for part in ("train", "validation"):
            assert a[part]["images"] == b[part]["images"]
            assert a[part]["loss"] == pytest.approx(b[part]["loss"], rel=1e-3)


def test_damaged_pictures_are_counted_and_listed(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(pictures, tmp_path / "pictures")
    (tmp_path / "pictures" / "train" / "ant" / "00.png").write_bytes(b"damaged")
    (tmp_path / "pictures" / "val" / "bee" / "01.png").write_bytes(b"damaged")
    results = run.train(recipe(), tmp_path / "run", data_dir=tmp_path / "pictures", device="cpu")
    assert results["validation"]["images"] == 7
    assert results["unreadable_pictures"] == 2
    assert "2 pictures could not be read and were skipped" in capsys.readouterr().err
    assert "00.png" in (tmp_path / "run" / "unreadable.txt").read_text()
    with pytest.raises(InputError, match=r"mend or remove it"):
        run.train(
            recipe("imagenet-resnet18", "data.folder.damaged=fatal"),
            tmp_path / "fatal",
            data_dir=tmp_path / "pictures",
            device="cpu",
        )


# --- schedules ---


def test_the_rate_falls_when_the_error_stops_falling(tmp_path: Path) -> None:
    """Five evaluations a plateau: the rate after each of a row of errors, by hand."""
    chosen = override(find("imagenet-resnet18"), ["schedule.plateau.patience=2", "schedule.plateau.drops=2"])
    state = type("State", (), {"recipe": chosen, "progress": Progress()})()
    rates = []
    for error in (90.0, 80.0, 79.95, 80.5, 70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 60.0):
        Run._plateau(state, error)
        rates.append(learning_rate(chosen.schedule, 0, state.progress.plateaus))
    # 79.95 is lower than 80 by less than 0.1, so 80.5 is the second evaluation without a lower error.
    assert rates == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001] * 5)


def test_a_plateau_is_remembered_by_checkpoints(pictures: Path, tmp_path: Path) -> None:
    settings = ["schedule.plateau.patience=1", "schedule.plateau.least=100", "evaluate_every=1"]
    run.train(recipe("imagenet-resnet18", *settings), tmp_path / "run", data_dir=pictures, device="cpu")
    rates = [line["learning_rate"] for line in metrics_of(tmp_path / "run")]
    # No error is lower by 100 points: each evaluation after the first divides the rate, three times at most.
    assert rates == pytest.approx([0.02, 0.02, 0.002, 0.0002] + [0.00002] * 4)
    last = sorted((tmp_path / "run").glob("checkpoint-*"))[-1]
    from residual.training.checkpoint import load_checkpoint

    assert load_checkpoint(last)[1].plateaus == 3


def test_epochs_become_iterations(pictures: Path, tmp_path: Path) -> None:
    results = run.train(
        recipe("imagenet-resnet18", "schedule.epochs=2"), tmp_path / "run", data_dir=pictures, device="cpu"
    )
    # Two epochs of 13 pictures are 26, four batches of 8 rounded up.
    assert results["iterations"] == 4


# --- fine-tuning ---


def test_fine_tuning_replaces_the_classifier_and_keeps_the_rest(
    trained: Path, pictures: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    two = tmp_path / "two"
    for part in ("train", "val"):
        for name in ("ant", "cow"):
            (two / part).mkdir(parents=True, exist_ok=True)
            (two / part / name).symlink_to(pictures / part / name)
    out = tmp_path / "tuned"
    assert (
        call(
            *("train", "finetune", "--weights", trained, "--data-dir", two, "--out", out),
            *("--set", "data.folder.size=32", "--set", "batch.size=4", "--set", "batch.bn_group=4"),
            *("--set", "data.folder.shorter_side=[36,48]"),
            *("--set", "schedule.epochs=1", "--set", "schedule.learning_rate=1e-9"),
        )
        == 0
    )
    assert "but its classifier, which starts anew for 2 classes" in capsys.readouterr().err
    tuned, before = load_weights(out), load_weights(trained)
    assert tuned.classes == ("ant", "cow")
    assert tuned.config["model"]["name"] == "resnet18"
    # At that rate nothing moves visibly; the preprocessing is that of the weights.
    assert torch.equal(tuned.preprocessing.mean, before.preprocessing.mean)
    moved = (tuned.model.layer4[1].conv2.weight - before.model.layer4[1].conv2.weight).abs().max()
    assert moved < 1e-6
    assert tuned.model.fc.weight.shape == (2, 512)
    # Resuming a complete run needs nothing named again.
    assert call("train", "--resume", "--out", out) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["finetune", "--data-dir", "{pictures}"], "starts from trained weights; name them with --weights"),
        (["finetune", "--weights", "{pictures}", "--data-dir", "{pictures}"], "is no weights folder"),
        (["imagenet-resnet18"], "name the folder that holds train/ and val/ with --data-dir"),
        (["imagenet-resnet18", "--data-dir", "/nonexistent"], "there is no folder /nonexistent"),
        (["imagenet-resnet18", "--data-dir", "{pictures}/val"], "has no folder train"),
        (
            ["imagenet-vgg16", "--data-dir", "{pictures}", *SET, "--set", "data.folder.size=8"],
            "too small for",
        ),
        (["imagenet-resnet18", "--set", "data.folder.size=300"], "hold a crop of size 300"),
        (["imagenet-resnet18", "--set", "data.folder=null"], "data.folder is for the data set folder"),
        (["cifar10-resnet20", "--set", "schedule.plateau.patience=3"], "follows the validation error"),
    ],
)
def test_wrong_input(
    arguments: list[str],
    sentence: str,
    pictures: Path,
    tmp_path: Path,
    call: Call,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "cifar10" in arguments[0]:
        # The data set is read first; digits stand in for it.
        arguments = [*arguments, "--set", "data.dataset=digits"]
    filled = [argument.replace("{pictures}", str(pictures)) for argument in arguments]
    assert call("train", *filled, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


# --- the paper's tables ---


@pytest.fixture(scope="module")
def study(pictures: Path, tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    out = tmp_path_factory.mktemp("study") / "imagenet"
    common = [*SET, "--data-dir", pictures, "--out", out]
    assert call("reproduce", "figure4", *common) == 0
    assert call("reproduce", "table2", *common) == 0
    assert call("reproduce", "table3", "--networks", "plain34", "resnet34-a", *common) == 0
    assert call("reproduce", "table4", "--networks", "resnet34-b", *common) == 0
    assert call("reproduce", "table5", "--networks", "resnet34-b", *common) == 0
    return out


def rows_of(study: Path, number: int) -> dict[str, dict[str, Any]]:
    table = json.loads((study / f"table{number}.json").read_text())
    assert any("3 classes, not ImageNet's 1000" in change for change in table["departures"])
    return {row["published"]["method"]: row for row in table["rows"]}


def test_tables_stand_beside_the_paper(study: Path) -> None:
    second, third, fourth, fifth = (rows_of(study, number) for number in (2, 3, 4, 5))
    assert list(second) == [row.method for row in TABLE2]
    assert all(row["top1"] is not None and row["images"] == 8 for row in second.values())
    assert list(third) == [row.method for row in TABLE3]
    assert third["ResNet-34 A"]["top1"] == second["ResNet-34"]["top1"]
    assert third["ResNet-34 B"]["top1"] is None
    assert list(fourth) == [row.method for row in TABLE4]
    assert fourth["ResNet-34 B"]["top5"] is not None
    # An ensemble of one network is that network.
    assert fifth[TABLE5[-1].method]["top1"] == fourth["ResNet-34 B"]["top1"]
    text = (study / "table3.md").read_text()
    assert "| VGG-16 | 28.07 | 9.33 | quoted |" in text
    assert "| ResNet-152 | 21.43 | 5.71 | not run |" in text
    assert "not comparable" in text
    runs = sorted(path.parent.parent.name for path in study.glob("*/*/results.json"))
    expected = ["plain18", "plain34", "resnet18", "resnet34-a", "resnet34-b"]
    assert runs == [f"imagenet-{name}" for name in expected]


def test_the_report_shows_the_tables(study: Path, tmp_path: Path, call: Call) -> None:
    folders = ["--imagenet", study, "--detection", tmp_path / "nothing"]
    assert call("reproduce", "report", "--out", tmp_path, *folders) == 0
    text = (tmp_path / "report.html").read_text()
    top1 = rows_of(study, 2)["plain-18"]["top1"]
    cells = "<td>27.94</td><td>-</td>" + f"<td>{top1:.2f}</td>"
    assert f'<th scope="row">plain-18</th>{cells}' in text
    assert "10 classes" not in text
    assert "3 classes, not ImageNet&#39;s 1000" in text
    assert text.count("data:image/svg+xml;base64,") == 1
    assert "Table 8: not run. <code>residual reproduce table8" in text


def test_figure4(study: Path) -> None:
    text = (study / "figure4.svg").read_text(encoding="utf-8")
    for word in ("plain networks", "residual networks", "18-layer", "34-layer", "validation", "error (%)"):
        assert word in text
    stored = json.loads((study / "figure4.json").read_text())
    assert list(stored["networks"]) == ["plain-18", "plain-34", "ResNet-18", "ResNet-34 A"]


def test_a_network_that_a_table_has_not(
    study: Path, pictures: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("reproduce", "table2", "--networks", "resnet50", "--out", study) == 2
    assert "this experiment has plain18, plain34" in capsys.readouterr().err


def test_the_papers_numbers() -> None:
    """Read off Tables 2 to 5 a second time."""
    assert [row.top1 for row in TABLE2] == [27.94, 28.54, 27.88, 25.03]
    ours = {row.method: (row.top1, row.top5) for row in TABLE3 if row.network}
    assert ours["ResNet-34 C"] == (24.19, 7.40)
    assert ours["ResNet-152"] == (21.43, 5.71)
    single = {row.method: (row.top1, row.top5) for row in TABLE4}
    assert single["ResNet-152"] == (19.38, 4.49)
    assert single["BN-inception"] == (21.99, 5.81)
    assert TABLE5[-1].top5 == 3.57


def test_layers_of_a_network_of_folders_are_measured_on_a_data_set(
    trained: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("analyze", "responses", trained) == 2
    assert "was trained on a folder of pictures" in capsys.readouterr().err
