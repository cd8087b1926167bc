"""Several classifiers tested together."""

from pathlib import Path

import pytest
import torch
from conftest import save_network

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
