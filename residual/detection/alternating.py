"""The four steps of Faster R-CNN's alternating training (Ren et al. [32], Section 3.2).

1. The proposal network learns, from the classifier's layers.
2. A second network learns to detect in those proposals, from the classifier's layers again.
3. The second network's shared layers stay fixed; the proposal network's own layers learn on them.
4. They still stay fixed; the head's own layers learn, in the new proposals.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data.box_batches import TrainingImage
from ..recipes import DetectionRecipe
from ..training.schedule import learning_rate
from ..training.sgd import SGD
from .faster_rcnn import FasterRCNN

STEPS = 4
#: Those of the head, counted from 0; the others are the proposals'.
HEAD_STEPS = (1, 3)


class AlternatingRCNN(nn.Module):
    """A detector in training, and the first step's proposal network beside it.

    Args:
        detector: as joint training would have it at its beginning; it is what the training makes.

    Attributes:
        step: 0 to 3; set by ``begin``.
    """

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.proposer = copy.deepcopy(detector)
        self.detector = detector
        self.losses = detector.losses
        self.step = -1
        #: What joint training would train; the steps choose from these.
        self._learned = {name for name, p in self.named_parameters() if p.requires_grad}

    def begin(self, step: int, anew: bool, optimizer: SGD) -> None:
        """Make a step's layers the ones that learn.

        Args:
            anew: whether the step begins, not just goes on after a resumption.
        """
        self.step = step
        if anew:
            for velocity in optimizer.velocities.values():
                velocity.zero_()
            if step == 2:
                self.detector.rpn_head.load_state_dict(self.proposer.rpn_head.state_dict())
        proposing = _ids(self.detector.rpn_head)
        learning = (
            _ids(self.proposer.rpn_head, *self.proposer.backbone.shared_layers()),
            _ids(self.detector) - proposing,
            proposing,
            _ids(self.detector) - proposing - _ids(*self.detector.backbone.shared_layers()),
        )[step]
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in self._learned and id(parameter) in learning)

    def forward(self, images: Sequence[TrainingImage]) -> Tensor:
        """Return the sums over the images of the four losses (``LOSSES``), zero where a step has none."""
        proposer = self.proposer if self.step < 2 else self.detector
        if self.step not in HEAD_STEPS:
            losses, _ = proposer.rpn_losses(images, proposer.training_maps(images))
            return torch.cat([losses, torch.zeros_like(losses)])
        with torch.no_grad():
            maps = proposer.training_maps(images)
            proposals = proposer.run_rpn(maps, [image.height_width for image in images]).proposals
        if self.step == 1:
            maps = self.detector.training_maps(images)
        losses = self.detector.roi_losses(images, maps, proposals)
        return torch.cat([torch.zeros_like(losses), losses])


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


def _ids(*modules: nn.Module) -> set[int]:
    return {id(parameter) for module in modules for parameter in module.parameters()}
