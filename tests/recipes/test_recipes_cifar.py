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


@pytest.mark.parametrize(
    ("name", "rate"),
    [("nin", 0.025), ("dsn", 0.025), ("maxout", 0.002), ("fitnet19", 0.01), ("fitnet19-hints", 0.01)],
)
def test_rivals_differ_from_section_4_2_in_the_rate_alone(name: str, rate: float) -> None:
    rival, ours = RECIPES[f"cifar10-{name}"], RECIPES["cifar10-resnet20"]
    assert rival.schedule.model_copy(update={"learning_rate": 0.1}) == ours.schedule
    assert rival.schedule.learning_rate == rate
    same = {"name", "description", "model", "schedule"}
    assert rival.model_dump(exclude=same) == ours.model_dump(exclude=same)
    assert rival.model.teacher == ("runs/cifar10-maxout" if name == "fitnet19-hints" else None)


def test_published_settings_are_the_files() -> None:
    nin, dsn = RECIPES["cifar10-nin-published"], RECIPES["cifar10-dsn-published"]
    assert (nin.batch.size, dsn.batch.size) == (128, 100)
    assert (nin.optimizer.weight_decay, dsn.optimizer.weight_decay) == (1e-4, 5e-4)
    assert [learning_rate(nin.schedule, i) for i in (0, 99_999, 100_000, 119_999)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01]
    )
    assert {learning_rate(dsn.schedule, i) for i in (0, 49_999)} == {0.025}
    assert (nin.schedule.iterations, dsn.schedule.iterations) == (120_000, 50_000)


def test_a_shortened_run_has_its_drops_at_the_same_fractions() -> None:
    schedule = override(RECIPES["cifar10-resnet20"], ["schedule.iterations=4000"]).schedule
    rates = [learning_rate(schedule, i) for i in (0, 1999, 2000, 2999, 3000, 3999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
