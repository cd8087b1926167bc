"""Nothing that is typed, read or killed hurts: new commands, readers and files are attacked by themselves.

The kinds of attack are in on_commands.py, on_files.py and on_runs.py. A few of each are in
``make test-long``, many in ``make test-slow``, which prints how many of what were tried and what was found.
"""

import itertools
import random
from pathlib import Path
from typing import Any
from urllib.error import URLError

import on_commands
import pytest
from attacks import Figures
from ground import Reader, files_of, readers
from on_files import damaged_files, no_files, outcome, paths_about
from on_runs import KINDS, Killed
from zygote import Zygote

from residual import download
from residual.data import cifar10
from residual.data.voc import load_voc
from residual.models.weights import WeightsConfig
from residual.recipes import DetectionRecipe, find


@pytest.fixture
def every_reader(ground: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Reader]]:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("there is no network")

    monkeypatch.setattr(download, "urlopen", unreachable)
    monkeypatch.setattr(cifar10, "RECORDS", 2)
    monkeypatch.setenv("RESIDUAL_CACHE", str(ground / "cache"))
    given = {
        "name": "cifar10",
        "split": "train",
        "splits": ["train"],
        "masks": True,
        "places": [1, 2],
        "identity": "",
        "crop": lambda width, height: ((0, 0, width, height), (8, 8)),
        "size": 8,
        "side": 9,
        "data": find("voc-finetune", DetectionRecipe).data,
        "classes": None,
        "notes": [],
        "dataset": load_voc(ground / "voc", ["test"]),
        "shape": Any,
        "data_dir": ground / "images" / "train",
        "recipe": find("digits-resnet20"),
        "config": WeightsConfig,
    }
    return list(readers(given))


@pytest.mark.long
def test_every_reader_reads_something(ground: Path, every_reader: list[tuple[str, Reader]]) -> None:
    """A reader for which the ground has nothing would not be attacked: lay something for it (ground.lay)."""
    left = dict(every_reader)
    for path in sorted({path for name in files_of(ground) for path in paths_about(ground, ground / name)}):
        for name, read in list(left.items()):
            found = outcome(read, path)
            assert found in ("read", "refused"), (name, path, found)
            if found == "read":
                del left[name]
    assert list(left) == []
    assert len(every_reader) > 45


@pytest.mark.long
def test_some_damaged_files(ground: Path, every_reader: list[tuple[str, Reader]]) -> None:
    figures = Figures()
    damaged_files(ground, every_reader, 12, figures)
    no_files(ground, ["runs/held-out/split.csv"], every_reader, figures)
    figures.check()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_damaged_files(
    ground: Path, every_reader: list[tuple[str, Reader]], capsys: pytest.CaptureFixture[str]
) -> None:
    figures = Figures()
    damaged_files(ground, every_reader, 2000, figures)
    no_files(ground, files_of(ground), every_reader, figures)
    with capsys.disabled():
        figures.print("Damaged files, each read by every reader of the package")
    figures.check()


@pytest.mark.long
def test_some_command_lines(ground: Path, zygote: Zygote) -> None:
    figures = Figures()
    on_commands.attack(ground, zygote, 12, figures)
    figures.check()


@pytest.mark.slow
@pytest.mark.timeout(10800)
def test_many_command_lines(ground: Path, zygote: Zygote, capsys: pytest.CaptureFixture[str]) -> None:
    figures = Figures()
    which = on_commands.attack(ground, zygote, 1300, figures)
    with capsys.disabled():
        figures.print("Command lines")
        print("of each command: " + ", ".join(f"{name or 'residual'} {n}" for name, n in which.most_common()))
    figures.check()
    assert set(which) >= {" ".join(words) for words, _ in itertools.islice(on_commands.commands(), 1, None)}


@pytest.mark.long
def test_killed_at_some_changes_of_files(zygote: Zygote, ground: Path, tmp_path: Path) -> None:
    figures = Figures()
    killed = Killed("classification", zygote, ground, tmp_path / "runs", figures)
    assert killed.changes > 40
    # While the folder is begun, in the middle, while results are written.
    for number in (2, killed.changes // 2):
        killed.attack("before a change of a file", kill_at=number)
    killed.attack("full disk", full_at=killed.changes // 3)
    figures.check()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_at_every_change_and_at_random_moments(
    zygote: Zygote, ground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = Figures()
    moments = random.Random(0)
    for kind in KINDS:
        killed = Killed(kind, zygote, ground, tmp_path / kind, figures)
        for number in range(1, killed.changes + 1):
            killed.attack("before a change of a file", kill_at=number)
        for _ in range(30):
            killed.attack("at a random moment", kill_after=moments.uniform(0, killed.seconds))
        for number in range(1, killed.changes + 1, 5):
            killed.attack("full disk", full_at=number)
    with capsys.disabled():
        figures.print("Runs killed and resumed")
    figures.check()
