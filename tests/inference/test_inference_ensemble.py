"""Several classifiers tested together."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import save_network, sentence_of, some_scores

from residual.evaluation.scores import save_scores
from residual.inference.ensemble import evaluate_ensemble
from residual.inference.evaluation import EvaluationOptions, evaluate


def test_ensembles_of_small_datasets(tmp_path: Path) -> None:
    members = [
        save_network(tmp_path / f"{seed}", classes="0123456789", mean=torch.rand(1, 8, 8), seed=seed)
        for seed in range(2)
    ]
    plain = evaluate(members[0], EvaluationOptions("digits")).metrics
    found, together = evaluate_ensemble(members, EvaluationOptions("digits"))
    assert len(together) == plain.images == 359
    for value in ("loss", "top1_error", "top5_error"):
        assert getattr(found[0][1], value) == pytest.approx(getattr(plain, value), rel=1e-4)


def test_classes_are_matched_as_evaluate_does(tmp_path: Path) -> None:
    given = some_scores(classes=2)
    ids = ("n01440764", "n01443537")
    plain, named = (
        replace(given, classes=names) for names in (ids, (f"{ids[1]} goldfish", f"{ids[0]} tench"))
    )
    named = replace(named, probabilities=given.probabilities.flip(1), targets=1 - given.targets)
    save_scores(plain, tmp_path / "a.safetensors")
    save_scores(named, tmp_path / "b.safetensors")
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    _, together = evaluate_ensemble(files, EvaluationOptions())
    torch.testing.assert_close(together.probabilities, given.probabilities)
    assert together.classes == ids


def test_scores_of_two_splits_are_refused_and_of_two_folders_said(tmp_path: Path) -> None:
    for name, data in (("a", "/data/x train"), ("b", "/data/x val"), ("c", "/mnt/x train")):
        save_scores(replace(some_scores(), about={"data": data}), tmp_path / f"{name}.safetensors")
    a, b, c = (tmp_path / f"{name}.safetensors" for name in "abc")
    said = sentence_of(lambda: evaluate_ensemble([a, b], EvaluationOptions()))
    assert "a.safetensors is of /data/x train and " in said
    assert "b.safetensors of /data/x val: these are other images" in said
    told: list[str] = []
    evaluate_ensemble([a, c], EvaluationOptions(), tell=told.append)
    assert len(told) == 1
    assert "averaged as the same images" in told[0]
    evaluate_ensemble([a, a], EvaluationOptions(), tell=told.append)
    assert len(told) == 1
    # They would not be read.
    elsewhere, train = EvaluationOptions(data_dir=tmp_path), EvaluationOptions(split="train")
    assert "leave --data-dir out" in sentence_of(lambda: evaluate_ensemble([a, c], elsewhere))
    assert "not tested again; leave --split out" in sentence_of(lambda: evaluate_ensemble([a, c], train))
