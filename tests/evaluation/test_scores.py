"""Softmax scores kept in files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import some_scores
from safetensors.torch import save_file

from residual import InputError
from residual.evaluation.scores import load_scores, save_scores


def test_a_round_trip(tmp_path: Path) -> None:
    given = some_scores()
    save_scores(given, tmp_path / "a.safetensors")
    back = load_scores(tmp_path / "a.safetensors")
    assert (back.ids, back.classes, back.about) == (given.ids, given.classes, given.about)
    assert torch.equal(back.probabilities, given.probabilities)
    assert torch.equal(back.targets, given.targets)
    (tmp_path / "usual").touch()
    # Whoever may read the run folder may read them.
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "usual").unlink()
    with pytest.raises(InputError, match="exists already"):
        save_scores(given, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"ends in .safetensors"):
        save_scores(given, tmp_path / "a.npz")
    with pytest.raises(InputError, match="scores that are no numbers"):
        save_scores(replace(given, probabilities=given.probabilities * torch.nan), tmp_path / "b.safetensors")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.safetensors"]


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load_scores(tmp_path / "nowhere.safetensors")
    (tmp_path / "text").write_text("no scores")
    with pytest.raises(InputError, match="damaged or no file of scores"):
        load_scores(tmp_path / "text")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(InputError, match="holds no scores; save them with"):
        load_scores(tmp_path / "weights")
    save_scores(some_scores(), tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "half").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged"):
        load_scores(tmp_path / "half")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": ("a",)}, "40, 8.* scores for 1 ids"),
        ({"ids": ("a",) * 40}, "the id 'a' is there twice"),
        ({"classes": ("a",) * 8}, "the class 'a' is there twice"),
        ({"targets": torch.full((40,), 8)}, "no class"),
        ({"targets": torch.zeros(39, dtype=torch.int64)}, "scores for 40 ids"),
    ],
)
def test_files_that_contradict_themselves(tmp_path: Path, change: dict[str, object], words: str) -> None:
    save_scores(replace(some_scores(), **change), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=words):
        load_scores(tmp_path / "a.safetensors")


def test_a_file_of_a_newer_version(tmp_path: Path) -> None:
    names = json.dumps(["a"])
    metadata = {"format": "residual scores", "version": "2", "ids": names, "classes": names, "about": "{}"}
    save_file({"probabilities": torch.ones(1, 1)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(InputError, match="newer residual"):
        load_scores(tmp_path / "a.safetensors")
