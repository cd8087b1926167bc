"""Several classifiers tested together: the mean of their softmax scores (Table 5)."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..evaluation.ensemble import average
from ..evaluation.metrics import Metrics
from ..evaluation.scores import Scores, load_scores
from ..models.names import is_name
from .evaluation import EvaluationOptions, evaluate


def evaluate_ensemble(
    members: Sequence[Path],
    options: EvaluationOptions,
    *,
    device: str = "auto",
    tell: Callable[[str], None] | None = None,
) -> tuple[list[tuple[str, Metrics]], Scores]:
    """Test several networks and the mean of their softmax scores.

    Args:
        members: files of saved scores, and weights folders, run folders or names, which are tested by the
            options.
        device, tell: as of ``evaluate``.

    Returns:
        Each member's name and metrics, and the ensemble's scores.

    Raises:
        InputError: when a member is wrong, or the members are not of the same images and classes.
    """
    found = []
    for path in members:
        if is_name(path) or path.is_dir():
            scores = evaluate(path, options, device=device, keep_scores=True, tell=tell).scores
            assert scores is not None
        else:
            scores = load_scores(path)
        found.append((str(path), scores))
    together = average(found)
    return [(name, scores.metrics()) for name, scores in found], together
