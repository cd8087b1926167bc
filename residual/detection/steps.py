"""When the four steps of alternating training begin, what they are made of, and their learning rates."""

from dataclasses import dataclass

from ..recipes import DetectionRecipe
from ..training.schedule import learning_rate

STEPS = 4
#: Those of the head, counted from 0; the others are the proposals'.
HEAD_STEPS = (1, 3)


@dataclass(frozen=True)
class Position:
    """Where in its four steps a run is.

    Attributes:
        step: 0 to 3.
        first: iteration of the step.
        length: of the step in iterations.
        batches: numbers of the mini-batches that make up the iteration, one after the other over the run.
    """

    step: int
    first: int
    length: int
    batches: range

    @property
    def of_head(self) -> bool:
        return self.step in HEAD_STEPS


def position(recipe: DetectionRecipe, iteration: int) -> Position:
    """Return where an iteration is in a recipe's steps, its schedule in iterations."""
    assert recipe.steps is not None
    run, lengths = recipe.schedule.iterations, recipe.steps.lengths
    edges = [run * sum(lengths[:step]) // sum(lengths) for step in range(STEPS + 1)]
    step = max(number for number in range(STEPS) if edges[number] <= iteration)
    head_batches = recipe.steps.head_batches
    each = [head_batches if number in HEAD_STEPS else 1 for number in range(STEPS)]
    before = sum((edges[number + 1] - edges[number]) * each[number] for number in range(step))
    first = before + (iteration - edges[step]) * each[step]
    return Position(step, edges[step], edges[step + 1] - edges[step], range(first, first + each[step]))


def rate(recipe: DetectionRecipe, iteration: int) -> float:
    """Return the learning rate: each step runs through a schedule by itself, the head's with their drops."""
    schedule = recipe.schedule
    place = position(recipe, min(iteration, schedule.iterations - 1))
    changed = {"iterations": max(place.length, 1), "drops": _own_drops(recipe, place)}
    own = schedule.model_copy(update=changed)
    return learning_rate(own, iteration - place.first)


def drops_of_steps(recipe: DetectionRecipe, iterations: int) -> list[int]:
    """Return the iterations after which the rate is divided; it begins anew with each step.

    Args:
        iterations: of the whole run.
    """
    schedule = recipe.schedule.model_copy(update={"iterations": iterations})
    recipe, found, first = recipe.model_copy(update={"schedule": schedule}), [], 0
    while first < iterations:
        place = position(recipe, first)
        found += [place.first + round(drop * place.length) for drop in _own_drops(recipe, place)]
        first = place.first + max(place.length, 1)
    return found


def _own_drops(recipe: DetectionRecipe, place: Position) -> tuple[float, ...]:
    assert recipe.steps is not None
    return recipe.steps.head_drops if place.of_head else recipe.schedule.drops
