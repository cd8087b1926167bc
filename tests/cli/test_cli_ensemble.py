"""``residual ensemble``."""

import json
from pathlib import Path

import pytest
import torch
from conftest import SEVEN, Call, Refused, save_network, write_images

from residual.evaluation.scores import load_scores
from residual.inference.ensemble import evaluate_ensemble
from residual.inference.evaluation import EvaluationOptions, evaluate


def test_ensembles_of_runs_and_scores(
    tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    data = write_images(tmp_path / "data", SEVEN, val=14)
    a = save_network(tmp_path / "a", classes=SEVEN, seed=1)
    b = save_network(tmp_path / "b", classes=SEVEN[::-1], seed=2)
    folder = ("--dataset", "folder", "--data-dir", data)
    saved = tmp_path / "a.safetensors"
    assert call("evaluate", a, *folder, "--save-scores", saved) == 0
    capsys.readouterr()
    assert call("ensemble", saved, b, *folder, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    options = EvaluationOptions("folder", "test", data)
    members, together = evaluate_ensemble([a, b], options)
    assert [entry["member"] for entry in shown["members"]] == [str(saved), str(b)]
    assert shown["members"][1]["loss"] == pytest.approx(members[1][1].loss, rel=1e-5)
    assert shown["ensemble"]["loss"] == pytest.approx(together.metrics().loss, rel=1e-5)
    scores = [evaluate(weights, options, keep_scores=True).scores for weights in (a, b)]
    mean = (scores[0].probabilities + scores[1].probabilities.flip(1)) / 2  # type: ignore[union-attr]
    torch.testing.assert_close(together.probabilities, mean)
    assert call("ensemble", saved, b, *folder, "--save-scores", tmp_path / "c.safetensors") == 0
    assert "ensemble of 2, 14 images" in capsys.readouterr().out
    torch.testing.assert_close(load_scores(tmp_path / "c.safetensors").probabilities, mean)

    other = write_images(tmp_path / "other", SEVEN, val=7)
    said = refused("ensemble", saved, b, "--dataset", "folder", "--data-dir", other)
    sentence = said.splitlines()[-1]
    assert f"{b} lacks the image" in sentence
    assert "and 6 more" in sentence
