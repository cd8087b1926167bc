"""What a run does in an iteration of localization, and the sums that its log lines need."""

import torch

from ..data.box_batches import AnnotatedBatches
from ..detection.training import DetectionIterations, LossMeter
from ..distributed import World
from ..recipes import LocalizationRecipe
from ..training.groups import one_thread_helps
from ..training.loop import Curve, Work
from .model import LOSSES
from .rcnn import AnyLocalizer

ERROR = Curve("localization_error", "errors")


def localization_work(
    model: AnyLocalizer,
    batches: AnnotatedBatches,
    recipe: LocalizationRecipe,
    world: World,
    device: torch.device,
) -> Work:
    """Return what a run learns, for the training loop."""
    meter = LossMeter(device, LOSSES)
    return Work(
        meter,
        lambda optimizer, rate: DetectionIterations(model, batches, recipe, world, meter, optimizer, rate),
        ERROR,
        helps=lambda: one_thread_helps(device),
    )
