"""What a run does in an iteration of detection, and the sums that its log lines need."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from .. import signals
from ..data.box_batches import AnnotatedBatches
from ..distributed import World
from ..randomness import Stream, mix
from ..recipes import DetectionRecipe, LocalizationRecipe
from ..training.groups import one_thread_helps
from ..training.loop import Curve, Meter, Work
from ..training.sgd import SGD
from ..training.small_maps import with_small_maps
from ..training.step import distributed, left_as_it_was
from .alternating import AlternatingRCNN
from .faster_rcnn import FasterRCNN
from .steps import position
from .steps import rate as alternating_rate

MEAN_AP = Curve("ap50", "mAP", rises=True)


class LossMeter(Meter):
    """The sums of some losses, and the number of images.

    Args:
        names: of the losses.
    """

    def __init__(self, device: torch.device, names: Sequence[str]) -> None:
        super().__init__(len(names) + 1, device)
        self.names = names

    def add(self, losses: Tensor, count: int, iteration: int) -> None:
        """Count some images, given the sums of their losses (len(names),)."""
        self.sums += torch.cat([losses, losses.new_full((1,), count)])
        self.note(torch.isfinite(losses).all(), iteration)

    def read(self, world: World) -> tuple[float, float | None, int]:
        line = self.line(world)
        return line["loss"], None, line["images"]

    def line(self, world: World) -> dict[str, Any]:
        *losses, images = world.sum_(self.sums.clone()).tolist()
        means = {name: value / max(images, 1) for name, value in zip(self.names, losses, strict=True)}
        return {"loss": sum(means.values()), "losses": means, "images": int(images)}


class DetectionIterations:
    """Iterations of training on images with boxes: a detector's, joint or alternating, or a localizer's.

    Args:
        model: from images to the sums of their losses; or an ``AlternatingRCNN``.
        batches: this rank's images by mini-batch, one an iteration but in alternating training.
        recipe: its schedule in iterations.
        rate: the learning rate of each iteration.
    """

    def __init__(
        self,
        model: Module,
        batches: AnnotatedBatches,
        recipe: DetectionRecipe | LocalizationRecipe,
        world: World,
        meter: LossMeter,
        optimizer: SGD,
        rate: Callable[[int], float],
    ) -> None:
        self.own = model
        self.batches = batches
        self.recipe = recipe
        self.world = world
        self.meter = meter
        self.optimizer = optimizer
        self.rate = rate
        #: The model as it is called, from the first iteration on: until then it may be in evaluation's mode.
        self.model: Module | None = None

    def __call__(self, iteration: int) -> None:
        """Do an iteration: images, both passes, update."""
        numbers = range(iteration, iteration + 1)
        if isinstance(self.own, AlternatingRCNN):
            numbers = self._begin_step(self.own, iteration)
        if self.model is None:
            self.model = self._as_called()
        # Dropout (VGG's) draws from the global generator: a pure function of the iteration, like the rest.
        torch.manual_seed(mix(self.recipe.seed, Stream.DROPOUT, iteration, self.world.rank))
        loaded = [image for number in numbers for image in self.batches(number)]
        device = self.meter.sums.device
        at_once = self.recipe.batch.at_once
        parts = [loaded[start : start + at_once] for start in range(0, len(loaded), at_once)]
        with left_as_it_was(self.meter.state, self.optimizer):
            for number, part in enumerate(parts, start=1):
                signals.check()
                with self._gradients_stay_here(number < len(parts)):
                    with torch.autocast(device.type, torch.bfloat16, self.recipe.precision == "bfloat16"):
                        losses = self.model([image.to(device) for image in part])
                    (losses.sum() / len(loaded)).backward()
                self.meter.add(losses.detach(), len(part), iteration)
        self.optimizer.step(self.rate(iteration))

    def _begin_step(self, model: AlternatingRCNN, iteration: int) -> range:
        """Begin the step that an iteration is in, if that is another; return the iteration's batches."""
        assert isinstance(self.recipe, DetectionRecipe)
        place = position(self.recipe, iteration)
        if place.step != model.step:
            model.begin(place.step, iteration == place.first, self.optimizer)
            self.model = self._as_called()
        return place.batches

    def _as_called(self) -> Module:
        """Return the model with what exchanges gradients, which knows what parameters have some.

        On a CPU a region's maps are small; evaluations see the convolutions that inference knows.
        """
        own = self.own
        if self.meter.sums.device.type == "cpu":
            own = with_small_maps(own, chain(own.parameters(), own.buffers()))
        return distributed(own) if self.world.size > 1 else own

    def _gradients_stay_here(self, stay: bool) -> contextlib.AbstractContextManager[None]:
        """Only the last part's backward pass exchanges gradients between the ranks."""
        if stay and isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()


def detection_work(
    model: FasterRCNN | AlternatingRCNN,
    batches: AnnotatedBatches,
    recipe: DetectionRecipe,
    world: World,
    device: torch.device,
) -> Work:
    """Return what a run learns, for the training loop."""
    meter = LossMeter(device, model.losses)
    work = Work(
        meter,
        lambda optimizer, rate: DetectionIterations(model, batches, recipe, world, meter, optimizer, rate),
        MEAN_AP,
        helps=lambda: one_thread_helps(device),
    )
    if not isinstance(model, AlternatingRCNN):
        return work
    return replace(
        work,
        rate=functools.partial(alternating_rate, recipe),
        batches=lambda iteration: position(recipe, iteration).batches.start,
    )
