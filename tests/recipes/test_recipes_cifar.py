"""The recipes of Section 4.2 have the paper's numbers."""

import pytest

from residual.recipes import RECIPES, override
from residual.training.schedule import learning_rate


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110, 1202])
@pytest.mark.parametrize("kind", ["plain", "resnet"])
def test_cifar10_recipes_are_section_4_2(kind: str, depth: int) -> None:
    recipe = RECIPES[f"cifar10-{kind}{depth}"]
    assert recipe.model.name == f"cifar_{kind}{depth}"
    assert (recipe.batch.size, recipe.batch.bn_group) == (128, 64)
    assert (recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.9, 1e-4)
    assert (recipe.data.pad, recipe.data.flip, recipe.data.mean) == (4, True, "per-pixel")
    rates = [learning_rate(recipe.schedule, i) for i in range(recipe.schedule.iterations)]
    assert len(rates) == 64_000
    warm = 400 if depth >= 110 else 0
    assert rates[:warm] == [0.01] * warm
    assert rates[warm:32_000] == [0.1] * (32_000 - warm)
    assert rates[32_000:48_000] == pytest.approx([0.01] * 16_000)
    assert rates[48_000:] == pytest.approx([0.001] * 16_000)


def test_a_shortened_run_has_its_drops_at_the_same_fractions() -> None:
    schedule = override(RECIPES["cifar10-resnet20"], ["schedule.iterations=4000"]).schedule
    rates = [learning_rate(schedule, i) for i in (0, 1999, 2000, 2999, 3000, 3999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
