"""What a classifier is trained on: datasets in memory and folders of images, whole, damaged, and shared."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from conftest import (
    CPU,
    NARROW,
    TINY,
    Refused,
    Shown,
    assert_same_run,
    environment,
    metrics_of,
    results_of,
    save_network,
    sentence_of,
    set_options,
    small_recipe,
    torchrun,
    write_images,
)
from PIL import Image
from rich.progress import Progress

from residual import InputError, run
from residual.cli.options import find_images
from residual.data.crops import ResizedCrop, ScaleCrop
from residual.data.dataset import Dataset
from residual.data.digits import load_digits
from residual.data.identity import identity_of
from residual.data.images import decode_centre
from residual.data.order import BalancedOrder, Order
from residual.data.resident import ResidentBatches
from residual.data.statistics import Statistics
from residual.data.stream import StreamBatches
from residual.distributed import World
from residual.environment import describe
from residual.errors import Interrupted
from residual.models.weights import load_weights
from residual.recipes import find, override
from residual.run.classification import ClassificationTask
from residual.run.run import check_same_data, task_of
from residual.run.sources import Folders, Resident, open_source
from residual.training.folder import RunFolder, remembered_data_dir


def test_a_run_on_a_folder(trained_on_images: Path, images: Path) -> None:
    results = results_of(trained_on_images)
    assert results["iterations"] == 8
    assert results["validation"]["images"] == 8
    assert (results["train"], results["test"]) == (None, None)
    lines = metrics_of(trained_on_images)
    assert [line["iteration"] for line in lines] == [4, 8]
    assert lines[0]["train"]["images"] == 32
    stored = load_weights(trained_on_images)
    assert stored.classes == ("ant", "bee", "cow")
    # The mean image is that of the centres at 256/224 of the size.
    assert stored.preprocessing.mean.shape == (3, 32, 32)
    files = sorted((images / "train").rglob("*.png"))
    centres = [decode_centre(file, 32, 37).double() / 255 for file in files]
    assert (stored.preprocessing.mean - sum(centres) / 13).abs().max() < 1e-6


@pytest.mark.parametrize("mean", ["per-pixel", "per-channel"])
def test_interrupted_in_mid_epoch_no_image_is_repeated_or_lost(
    mean: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that is resumed takes the mean from the cache, and the other one measured it: the same bits."""
    recipe = small_recipe("imagenet-resnet18", f"data.mean={mean}", "data.std=true")
    whole, out = tmp_path / "whole", tmp_path / "run"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of the whole run"))
    run.train(recipe, whole, data_dir=images, device="cpu")

    seen: dict[int, list[str]] = {}
    original = StreamBatches.__call__

    def watched(batches: StreamBatches, iteration: int) -> Any:
        if iteration == 5 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise RuntimeError("the power fails")
        seen[iteration] = [batches.index.ids[i] for i in batches.indices(iteration).tolist()]
        return original(batches, iteration)

    monkeypatch.setattr(StreamBatches, "__call__", watched)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of the other run"))
    with pytest.raises(RuntimeError, match="the power fails"):
        run.train(recipe, out, data_dir=images, device="cpu")
    # The checkpoint is that after 3 iterations, within the second epoch of 13 images.
    assert sorted(seen) == [0, 1, 2, 3, 4]
    run.train(None, out, resume=True, device="cpu")
    row = [name for iteration in range(8) for name in seen[iteration]]
    names = {path.relative_to(images / "train").as_posix() for path in (images / "train").rglob("*.png")}
    assert all(set(row[start : start + 13]) == names for start in (0, 13, 26, 39))
    assert_same_run(out, whole)


@pytest.mark.long
def test_two_ranks_compute_what_one_process_computes_on_a_folder(
    images: Path, tmp_path: Path, shown: Shown
) -> None:
    # BN over four values of a 1 x 1 map would magnify the rounding of another order of additions.
    small = ["data.folder.size=64", "data.folder.shorter_side=[64,72]", "batch.bn_group=4"]
    small += ["schedule.learning_rate=0.001", "schedule.iterations=4", "evaluate_every=2"]
    arguments = ["train", "imagenet-resnet18", *set_options([*NARROW, *small]), "--data-dir", images]
    shown(*arguments, "--out", tmp_path / "one")
    done = subprocess.run(
        torchrun(*arguments, "--out", tmp_path / "two"),
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


def test_damaged_images_are_counted_and_listed(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(images, tmp_path / "images")
    (data / "train" / "ant" / "00.png").write_bytes(b"damaged")
    (data / "val" / "bee" / "01.png").write_bytes(b"damaged")
    results = run.train(small_recipe(), tmp_path / "run", data_dir=data, device="cpu")
    assert results["validation"]["images"] == 7
    assert results["unreadable_images"] == 2
    assert "2 images could not be read and were skipped" in capsys.readouterr().err
    assert "00.png" in (tmp_path / "run" / "unreadable.txt").read_text()
    # A session that reads no training image any more knows of those that others left out.
    for name in ("results.json", "unreadable.txt"):
        (tmp_path / "run" / name).unlink()
    again = run.train(None, tmp_path / "run", data_dir=data, device="cpu", resume=True)
    assert again["unreadable_images"] == 2
    assert "00.png" in (tmp_path / "run" / "unreadable.txt").read_text()
    fatal = small_recipe("imagenet-resnet18", "data.folder.damaged=fatal")
    fatal = override(fatal, ["checkpoint_every=1", "evaluate_every=100"])
    with pytest.raises(InputError, match=r"mend it and go on"):
        run.train(fatal, tmp_path / "fatal", data_dir=data, device="cpu")
    # What it says can be done.
    for split, file in (("train", "ant/00.png"), ("val", "bee/01.png")):
        shutil.copy(images / split / file, data / split / file)
    assert (
        run.train(None, tmp_path / "fatal", data_dir=data, device="cpu", resume=True)["unreadable_images"]
        == 0
    )
    assert "note: not all images are what they were when the run was begun" in capsys.readouterr().err


def test_one_rank_measures_and_tells_the_others(
    trained_on_images: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The colours that noise goes along, too, and where there is no cache folder that all can reach."""
    recipe = override(find("finetune"), [*NARROW[:-3], "data.folder.colour_noise=0.1"])
    recipe = run.start_from(recipe, trained_on_images)
    told: list[Statistics] = []

    def gather(world: World, value: Statistics | None) -> list[Statistics | None]:
        assert (value is not None) == world.is_main
        told.extend([value] if value else [])
        return [told[0], None]

    monkeypatch.setattr(World, "gather", gather)
    for rank in range(2):
        task = task_of(recipe, images, World(rank, 2))
        assert isinstance(task, ClassificationTask)
        task.start()
        with monkeypatch.context() as patch:
            # What exchanges gradients waits for the other rank.
            patch.setattr("residual.run.classification.classification_work", lambda *_: None)
            if rank:
                patch.setattr("residual.run.sources.training_statistics", None)
            task.place(CPU, task.recipe.schedule, eager=True)
        assert task.source.measured is told[0]
        task.batches.close()


def test_images_are_seen_as_the_recipe_says(images: Path) -> None:
    """Crops and colours of Section 3.4, or those of later years; 4 pixels around small images."""

    def batches(*settings: str) -> StreamBatches:
        source = open_source(small_recipe("imagenet-resnet18", *settings), images)
        made = source.batches(source.preprocessing(None), CPU, World())
        assert isinstance(made, StreamBatches)
        return made

    papers = batches()
    assert (papers.crop, papers.flip, type(papers.indices)) == (ScaleCrop(32, 36, 48), True, Order)
    values, vectors = run.folder_statistics(images, 32)[1].components
    assert papers.noise is not None
    assert papers.noise.std == 0.1
    assert torch.equal(papers.noise.values, values)
    assert torch.equal(papers.noise.vectors, vectors)
    later = [
        "data.folder.crop=resized",
        "data.folder.colour_noise=0",
        "data.flip=false",
        "data.balanced=true",
    ]
    others = batches(*later)
    assert (others.crop, others.flip, others.noise) == (ResizedCrop(32), False, None)
    assert type(others.indices) is BalancedOrder
    digits = Resident(override(find("digits-resnet20"), ["data.pad=4", "data.flip=true"]), None)
    small = digits.batches(digits.preprocessing(None), CPU, World())
    assert isinstance(small, ResidentBatches)
    assert (small.pad, small.flip, type(small.indices)) == (4, True, Order)


@pytest.fixture
def undivided(images: Path, tmp_path: Path) -> Path:
    """Three classes of seven images each, as they come."""
    folder = tmp_path / "undivided"
    for path in images.rglob("*.png"):
        to = folder / path.parent.name / f"{path.parts[-3]} {path.name}"
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    return folder


def split_of(run: Path) -> dict[str, list[str]]:
    lines = (run / "split.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "image,class,split"
    found: dict[str, list[str]] = {}
    for image, name, split in (line.split(",") for line in lines[1:]):
        assert image.split("/")[0] == name
        found.setdefault(split, []).append(image)
    return found


def test_a_folder_as_it_comes(undivided: Path, tmp_path: Path, shown: Shown, refused: Refused) -> None:
    small = set_options(NARROW)
    arguments = ["train", "imagenet-resnet18", *small, "--data-dir", undivided, "--out"]
    said = refused(*arguments, tmp_path / "none")
    assert "has no validation part (val); hold a share of each class out" in said
    assert "--set data.validation=0.2" in said
    share = ["--set", "data.validation=0.3"]
    shown(*arguments, tmp_path / "run", *share)
    split = split_of(tmp_path / "run")
    # 21 images of three classes, 30 % of seven is two.
    assert (
        sorted(name.split("/")[0] for name in split["validation"]) == ["ant"] * 2 + ["bee"] * 2 + ["cow"] * 2
    )
    there = sorted(path.relative_to(undivided).as_posix() for path in undivided.rglob("*.png"))
    assert sorted(split["train"] + split["validation"]) == there
    results = results_of(tmp_path / "run")
    assert results["validation"]["images"] == 6
    # Testing looks at what was held out, not at what was trained on; one number.
    for data in ([], ["--data-dir", undivided]):
        told = shown("evaluate", tmp_path / "run", *data, "--json")
        tested = json.loads(told.out)
        assert (tested["images"], tested["loss"]) == (6, results["validation"]["loss"])
        assert tested["data"].endswith("(6 for validation)")
        assert "has learned from" not in told.err
    told = shown("evaluate", tmp_path / "run", "--split", "train", "--json")
    assert json.loads(told.out)["images"] == 15
    assert f"{tmp_path / 'run'} has learned from these images, so the errors say little of other" in told.err
    # Weights that lie elsewhere know neither what was held out nor files that are beside them.
    alone = shutil.copytree(tmp_path / "run" / "weights", tmp_path / "alone")
    (tmp_path / "split.csv").write_text("of somebody else")
    tested = shown("evaluate", alone, "--data-dir", undivided, "--json")
    assert "most of these 21 were learned" in tested.err
    assert json.loads(tested.out)["images"] == 21
    # The seed of the split decides it, not that of the run.
    for setting, same in (("seed=5", True), ("data.split_seed=5", False)):
        recipe = small_recipe("imagenet-resnet18", "data.validation=0.3", setting)
        divided = open_source(recipe, undivided).divided()
        assert divided
        assert (divided["validation"].files == tuple(split["validation"])) == same
    # Of a folder that has grown others would be held out, and these were trained on.
    (tmp_path / "run" / "scores.safetensors").unlink()
    grown = shutil.copytree(undivided, tmp_path / "grown")
    for name in split["train"][:6]:
        shutil.copy(grown / name, (grown / name).with_stem("more"))
    shown("report", tmp_path / "run", "--data-dir", grown)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "split.csv is of other images or classes than there are now" in page
    assert not (tmp_path / "run" / "scores.safetensors").exists()
    # ... and what was held out is as it was, also where a class has come in that sorts among the others.
    shutil.copytree(grown / "bee", grown / "bat")
    tested = json.loads(shown("evaluate", tmp_path / "run", "--data-dir", grown, "--json").out)
    assert (tested["images"], tested["loss"]) == (6, results["validation"]["loss"])
    shutil.rmtree(grown / "bat")
    (grown / split["validation"][0]).unlink()
    said = shown("evaluate", tmp_path / "run", "--data-dir", grown, "--dataset", "folder").err
    assert "15 of them have the names of images that were learned" in said
    (undivided / split["validation"][0]).unlink()
    assert "put it back" in refused("evaluate", tmp_path / "run")


def test_a_list_of_images(undivided: Path, tmp_path: Path, shown: Shown, refused: Refused) -> None:
    files = sorted(path.relative_to(tmp_path).as_posix() for path in undivided.rglob("*.png"))
    list_of = tmp_path / "flowers.csv"
    rows = [f"{file},{Path(file).parent.name} of mine" for file in files]
    list_of.write_text("\n".join(["path,label", *rows]))
    small = set_options(NARROW)
    arguments = ["train", "imagenet-resnet18", *small, "--data-dir", list_of, "--out"]
    assert "hold a share of each class out" in refused(*arguments, tmp_path / "none")
    shown(*arguments, tmp_path / "run", "--set", "data.validation=0.3")
    assert load_weights(tmp_path / "run").classes == ("ant of mine", "bee of mine", "cow of mine")
    tested = json.loads(shown("evaluate", tmp_path / "run", "--json").out)
    assert (tested["images"], tested["loss"]) == (6, results_of(tmp_path / "run")["validation"]["loss"])
    # One that says which images are for what.
    divided = [f"{row},{'train' if n % 3 else 'val'}" for n, row in enumerate(rows)]
    list_of.write_text("\n".join(["path,label,split", *divided]))
    assert "has a validation part of its own" in refused(
        *arguments, tmp_path / "none", "--set", "data.validation=0.3"
    )
    assert open_source(small_recipe(), list_of).images == {"train": 14, "validation": 7}


def test_other_images_under_the_same_names_are_another_run(
    tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    data, out = write_images(tmp_path / "data", suffix="bmp"), tmp_path / "run"
    settings = set_options([*NARROW, "schedule.iterations=2"])
    shown("train", "imagenet-resnet18", *settings, "--data-dir", data, "--out", out)
    (out / "results.json").unlink()
    shown("train", "--resume", "--out", out)
    (out / "results.json").unlink()
    first, other = data / "train" / "ant" / "00.bmp", data / "train" / "ant" / "03.bmp"
    whole = first.read_bytes()
    first.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one pixel's blue, in a file of the same size
    assert other.is_file()
    said = refused("train", "--resume", "--out", out)
    assert "was begun on other images (the same names to train on, but images, their classes or boxes" in said
    assert "was begun on other images" in refused("finish", out)
    first.write_bytes(whole)
    # What earlier versions noted of the data was less: it has to agree.
    file = out / "environment.json"
    older = [
        session | {"data": {"classes": 3, "images": {"train": 13, "validation": 8}}}
        for session in json.loads(file.read_text())
    ]
    file.write_text(json.dumps(older))
    assert "not as in the session before" not in shown("train", "--resume", "--out", out).err
    (out / "results.json").unlink()
    sessions = json.loads(file.read_text())
    assert sessions[0]["data"].keys() == {"classes", "images"}
    assert sessions[-1]["data"].keys() == {"classes", "images", "files", "content", "labels"}
    sessions[-1] |= {"threads": 7, "instructions": "AVX"}
    file.write_text(json.dumps(sessions))
    said = shown("train", "--resume", "--out", out).err
    here = torch.backends.cpu.get_cpu_capability()
    differs = f"instructions: AVX then, {here} now, threads: 7 then, 1 now"
    assert f"note: not as in the session before ({differs}): the run is the same but" in said
    # Since then more is noted, and that counts.
    (out / "results.json").unlink()
    first.write_bytes(other.read_bytes())
    assert "was begun on other images" in refused("train", "--resume", "--out", out)


def test_a_run_begun_where_accents_were_apart_goes_on(tmp_path: Path) -> None:
    """As earlier versions noted the images of classes whose folders macOS has named."""
    source = open_source(
        small_recipe(), write_images(tmp_path / "data", ("cafe\u0301", "dog"), sizes=[(8, 8)])
    )
    assert isinstance(source, Folders)
    assert source.classes == ("caf\u00e9", "dog")
    train, test = source.splits.values()
    paths = [index.path(number) for index in (train, test) for number in range(len(index))]
    noted = identity_of(
        ["cafe\u0301", "dog", *train.files, *test.files], [train.targets, test.targets], paths
    )
    assert noted != source.fingerprint()["content"]
    folder = RunFolder(tmp_path)
    task: Any = SimpleNamespace(fingerprint=source.fingerprint, mends=False)
    session = describe(CPU, 1) | {"iteration": 0, "departures": []}
    folder.add_session(session | {"data": source.fingerprint() | {"content": noted}})
    assert check_same_data(folder, task, resume=True) == source.fingerprint()
    paths[0].write_bytes(paths[1].read_bytes())
    assert "other images" in sentence_of(lambda: check_same_data(folder, task, resume=True))


def test_where_cifar10_lies_is_noted_though_nobody_said_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run that is resumed in another folder would look for it there, and download it again."""
    asked: list[Path | None] = []

    def load(name: str, split: Literal["train", "test"], data_dir: Path | None) -> Dataset:
        asked.append(data_dir)
        return load_digits(split)

    monkeypatch.setattr("residual.run.sources.load_dataset", load)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    tiny = [word for word in TINY[1:] if word != "--set"]
    settings = [*tiny, "data.dataset=cifar10", "schedule.iterations=2"]
    recipe = override(find("digits-resnet20"), settings)
    run.train(recipe, tmp_path / "run", device="cpu")
    assert remembered_data_dir(tmp_path / "run") == tmp_path / "data"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "run" / "results.json").unlink()
    run.train(None, tmp_path / "run", device="cpu", resume=True)
    assert set(asked) == {Path("data"), tmp_path / "data"}


def test_a_channel_that_never_changes_is_not_divided(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for number, name in enumerate(("ant", "bee")):
            (tmp_path / part / name).mkdir(parents=True)
            # As fluorescence is kept: in blue alone.
            blue = Image.new("RGB", (40, 40), (0, 0, 100 + 90 * number))
            blue.save(tmp_path / part / name / "1.png")
    recipe = small_recipe("imagenet-resnet18", "data.std=true", "data.mean=per-channel")
    red, green, deviation = open_source(recipe, tmp_path).preprocessing(None).std.flatten().tolist()
    assert (red, green) == (1, 1)
    assert deviation == pytest.approx(45 / 255, abs=1e-3)


def test_progress_ends_with_the_measurement(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which hides the terminal's cursor as long as it lasts."""
    bars = []

    def remembered(**_: bool) -> Progress:
        bars.append(Progress())
        return bars[-1]

    def stopped(*given: Any) -> None:
        given[3](1)
        assert bars[0].live.is_started
        raise Interrupted("stop", signal.SIGINT)

    monkeypatch.setattr("residual.terminal.progress", remembered)
    monkeypatch.setattr("residual.terminal.BAR_SECONDS", 0.0)
    monkeypatch.setattr("residual.run.sources.training_statistics", stopped)
    with pytest.raises(Interrupted):
        run.folder_statistics(images, 32)
    assert not bars[0].live.is_started


def test_a_dataset_in_memory_is_known_by_every_pixel_and_class() -> None:
    recipe = find("digits-resnet20")
    source = Resident(recipe, None)
    begun = source.fingerprint()
    assert Resident(recipe, None).fingerprint() == begun
    divided = Resident(override(recipe, ["data.validation=100"]), None)
    assert divided.fingerprint()["content"] != begun["content"]
    for what in ("images", "targets"):
        other = Resident(recipe, None)
        getattr(other.splits["test"], what).view(-1)[77] += 1
        assert other.fingerprint()["content"] != begun["content"]


def test_a_validation_part_is_what_the_curve_shows(tmp_path: Path, shown: Shown) -> None:
    out = tmp_path / "run"
    shown(
        *("train", *TINY, "--out", out, "--set", "data.validation=200", "--set", "schedule.iterations=30"),
    )
    measured = metrics_of(out)
    assert all("test" not in line and line["validation"]["images"] == 200 for line in measured)
    results = results_of(out)
    assert [results[part]["images"] for part in ("train", "validation", "test")] == [1238, 200, 359]
    assert results["best_validation_top1_error"] == min(line["validation"]["top1_error"] for line in measured)


def test_a_folder_as_people_bring_it_trains_is_tested_and_predicted(tmp_path: Path, shown: Shown) -> None:
    """Names that are no UTF-8, a link that leads nowhere, a pipe, other formats, and what is no image."""
    data = write_images(tmp_path / "images", classes=("ant", "bee"))
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/images/train/caf\xe9"))
    for part in ("train", "val"):
        (data / part / "bee").rename(data / part / strange.name)
        (data / part / strange.name / "gone.png").symlink_to("nowhere.png")
    Image.open(strange / "01.png").save(strange / os.fsdecode(b"\xfc.jpg"), quality=95)
    Image.open(strange / "01.png").save(strange / "a.gif")
    os.mkfifo(strange / "pipe.jpg")
    (strange / "layers.psd").write_bytes(b"8BPS")
    out = tmp_path / "run"
    told = shown("train", "imagenet-resnet18", *set_options(NARROW), "--data-dir", data, "--out", out).err
    assert "1 .psd left out, as no images that are read" in told
    assert "3 images could not be read and were skipped" in told
    assert results_of(out)["unreadable_images"] == 3  # of two parts, under one name in both
    listed = (out / "unreadable.txt").read_text(encoding="utf-8")
    assert "caf\\xe9/gone.png is a link to nowhere.png, which is not there" in listed
    assert "caf\\xe9/pipe.jpg is a device or a pipe, not a file" in listed
    assert load_weights(out).classes == ("ant", "caf\\xe9")
    found = shown("evaluate", out)
    assert "8 images" in found.out
    assert "gone.png is a link to" in found.err
    assert len(find_images([str(strange)])) == 10


def test_what_there_is_to_know_of_a_folder_is_said_once(undivided: Path) -> None:
    (undivided / "ant" / "drawing.psd").touch()
    (note,) = open_source(small_recipe("imagenet-resnet18", "data.validation=0.3"), undivided).notes
    assert "1 .psd left out" in note


def test_what_is_kept_of_the_weights_is_of_those_that_the_run_has_begun_with(
    images: Path, tmp_path: Path
) -> None:
    """Killed before its first checkpoint a run begins anew, with the weights as they are now."""
    weights, folder = tmp_path / "weights", RunFolder(tmp_path / "run")
    for mean in (0.25, 0.75):
        shutil.rmtree(weights, ignore_errors=True)
        save_network(weights, mean=torch.full((3,), mean))
        task = task_of(run.start_from(override(find("finetune"), NARROW[:-3]), weights), images, World())
        task.start()
        task.record(folder)
    stored = folder.read_start()
    assert stored
    assert stored.mean.unique().item() == 0.75
