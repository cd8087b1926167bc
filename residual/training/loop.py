"""The training loop: iterations, evaluations, checkpoints, log lines."""

import math
import signal
import time
from collections.abc import Callable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..distributed import World
from ..errors import InputError, Interrupted
from ..recipes import DetectionRecipe, Recipe
from .batchnorm import (
    AVERAGED_BATCHES,
    average_statistics,
    batch_norms,
    synchronize,
    tell_groups_apart,
)
from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .display import Display
from .folder import RunFolder
from .iteration import (
    Batches,
    CapturedIterations,
    EagerIterations,
    PlannedBatches,
    compile_regions,
    has_dropout,
    without_compilation,
)
from .schedule import learning_rate
from .sgd import SGD
from .signals import StopSignals
from .step import Meter, Step

#: Ranks agree on stopping only every so many iterations: asking costs an exchange.
STOP_EVERY = 10


class Diverged(InputError):
    """The loss is no longer a finite number."""


class TrainingSums(Protocol):
    """Sums over training pictures since the last log line, on the device (step.Meter and its like).

    Attributes:
        sums: float64, of any length.
        broken_at: iteration of the first loss that was not finite, -1 while there is none.
    """

    sums: Tensor
    broken_at: Tensor

    def read(self, world: World) -> tuple[float, float | None, int]: ...

    def line(self, world: World) -> dict[str, Any]: ...

    def reset(self) -> None: ...


@dataclass(frozen=True)
class Curve:
    """The number in percent that a run's curve is about.

    Attributes:
        key: in what an evaluation gives.
        name: for people.
        rising: whether more is better.
    """

    key: str
    name: str
    rising: bool


ERRORS = Curve("top1_error", "errors", rising=False)


@dataclass(frozen=True)
class Work:
    """What is learned in another way than classification.

    Attributes:
        meter: of its sums.
        iterate: from the optimizer and the learning rate of an iteration to what does one, given its number.
        curve: what its evaluations are about.
        rate: the learning rate of an iteration; None for the schedule's.
    """

    meter: TrainingSums
    iterate: Callable[[SGD, Callable[[int], float]], Callable[[int], None]]
    curve: Curve
    rate: Callable[[int], float] | None = None


class Run:
    """One training run: the network and all that changes with it.

    Args:
        recipe: what to do.
        model: on its device, in channels-last format.
        batches: this rank's inputs and targets by iteration; ``len`` is the number of an epoch's iterations.
        evaluate: the network's metrics, the curve's key among them, on the part that the curve is about.
        part: that part's name, "validation" or "test".
        folder: where rank 0 writes.
        world: the ranks that train together.
        eager: on a GPU, run PyTorch's kernels one by one, without compiling and recording them.
        resume_command: what to type to continue the run, for messages.
        log: also called with every line of metrics.jsonl (TensorBoard, say).
        work: what is learned; None for classification.
    """

    def __init__(
        self,
        recipe: Recipe | DetectionRecipe,
        model: nn.Module,
        batches: Sized,
        evaluate: Callable[[], dict[str, Any]],
        part: str,
        folder: RunFolder,
        world: World,
        resume_command: str,
        eager: bool = False,
        log: Callable[[dict[str, Any]], None] | None = None,
        work: Work | None = None,
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.batches = batches
        self.evaluate = evaluate
        self.part = part
        self.folder = folder
        self.world = world
        self.resume_command = resume_command
        self.log = log
        self.device = next(model.parameters()).device
        self.progress = Progress()
        #: The newest evaluation, of this session.
        self.last: dict[str, Any] | None = None
        self.optimizer = SGD(
            model, recipe.optimizer.momentum, recipe.optimizer.weight_decay, recipe.optimizer.form
        )
        #: BN layers whose statistics the run moves; detection has none.
        self.layers = batch_norms(model)
        self.curve = work.curve if work else ERRORS
        self._rate = work.rate if work else None
        self.meter: TrainingSums
        #: Does one iteration, given its number.
        self.iterate: Callable[[int], None]
        if work:
            self.meter, self.iterate = work.meter, work.iterate(self.optimizer, self.rate)
        else:
            assert isinstance(recipe, Recipe)
            self.group = min(recipe.batch.bn_group, recipe.batch.size // world.size)
            self.meter, self.iterate = self._classification(recipe, eager)

    def _classification(self, recipe: Recipe, eager: bool) -> tuple[Meter, Callable[[int], None]]:
        model, batches, world = self.model, self.batches, self.world
        assert isinstance(batches, Batches)
        meter = Meter(self.device)
        fast = self.device.type == "cuda" and not eager
        if fast:
            tell_groups_apart(model, self.group)
            compile_regions(model)
            self.layers = batch_norms(model)
        at_once = recipe.batch.size // world.size if fast else self.group
        step = Step(model, self.optimizer, at_once, world, meter, recipe.precision)
        if (
            fast
            and world.size == 1
            and isinstance(batches, PlannedBatches)
            and not has_dropout(model)
            and not recipe.schedule.plateau
        ):
            return meter, CapturedIterations(step, batches, self.rate, self.device)
        return meter, EagerIterations(step, batches, self.rate, recipe.seed, world.rank)

    def rate(self, iteration: int) -> float:
        """Return the learning rate of an iteration, as things stand."""
        if self._rate:
            return self._rate(iteration)
        return learning_rate(self.recipe.schedule, iteration, self.progress.plateaus)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that the next iteration depends on, by their name in a checkpoint."""
        return {
            **{f"model/{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{f"velocity/{name}": tensor for name, tensor in self.optimizer.velocities.items()},
            "log/sums": self.world.sum_(self.meter.sums.clone()),
        }

    @torch.no_grad()
    def restore(self, path: Path) -> None:
        """Take everything from a checkpoint, in place.

        Raises:
            InputError: when it is damaged or not of this network.
        """
        stored, progress = load_checkpoint(path)
        mine = self.tensors()
        other = sorted(
            name
            for name in mine.keys() | stored.keys()
            if name not in mine or name not in stored or mine[name].shape != stored[name].shape
        )
        if other:
            raise InputError(f"{path}: the checkpoint is of another network; it differs in {other[0]}")
        for name, tensor in self.model.state_dict().items():
            tensor.copy_(stored[f"model/{name}"])
        for name, tensor in self.optimizer.velocities.items():
            tensor.copy_(stored[f"velocity/{name}"])
        # The sums are over all ranks: the first one goes on with them.
        if self.world.is_main:
            self.meter.sums.copy_(stored["log/sums"])
        self.progress = progress

    def train(self) -> None:
        """Train to the recipe's last iteration, average the BN statistics, and log the final errors.

        Raises:
            Interrupted: after SIGINT or SIGTERM, when a checkpoint has been written.
            Diverged: at a loss that is not finite.
            OSError: when the run folder cannot be written; what was there is untouched.
        """
        schedule = self.recipe.schedule
        epoch = self.recipe.evaluate_every or len(self.batches)
        progress, world = self.progress, self.world
        before, start = progress.seconds, time.perf_counter()
        self.model.train()
        silent = not world.is_main
        name, batch = self.recipe.name, self.recipe.batch.size
        with (
            StopSignals() as stop,
            Display(name, schedule.iterations, batch, progress.iteration, silent, self.curve.name) as display,
        ):
            while progress.iteration < schedule.iterations:
                self.iterate(progress.iteration)
                progress.iteration += 1
                progress.seconds = before + time.perf_counter() - start
                last = progress.iteration == schedule.iterations
                if display.due():
                    self._show(display)
                if progress.iteration % epoch == 0 and not last:
                    self._log(display)
                stopping = (world.size == 1 or progress.iteration % STOP_EVERY == 0) and world.any(
                    stop.received is not None, self.device
                )
                if last or stopping or progress.iteration % self.recipe.checkpoint_every == 0:
                    self._save()
                if stopping:
                    self._stop(stop)
            if self.layers:
                self._average_statistics(display)
            if world.any(stop.received is not None, self.device):
                self._stop(stop)
            self._log(display)

    def _average_statistics(self, display: Display) -> None:
        assert isinstance(self.batches, Batches)
        first = self.recipe.schedule.iterations
        average = range(first, first + min(AVERAGED_BATCHES, len(self.batches)))
        display.measure(self.progress.iteration)
        display.say(f"averaging BN statistics over {len(average)} mini-batches")
        with without_compilation():
            average_statistics(self.model, self.batches, average, self.group, self.world)

    def _stop(self, stop: StopSignals) -> None:
        at = f"stopped at iteration {self.progress.iteration:,}"
        raise Interrupted(f"{at}; continue with: {self.resume_command}", stop.received or signal.SIGTERM)

    def _show(self, display: Display) -> None:
        if self.world.size == 1:
            self._check_finite()
            display.show(self.progress.iteration, *self.meter.read(self.world)[:2], self._waited())
        else:
            # What the other ranks have seen is not asked for between evaluations.
            display.show(self.progress.iteration, *self.meter.read(World())[:2], self._waited())

    def _waited(self) -> float:
        """Return the seconds that this rank has waited for pictures so far."""
        return getattr(self.batches, "waited", 0.0)

    def _log(self, display: Display) -> None:
        """Evaluate, write a line of metrics.jsonl, and start new training sums."""
        self._check_finite()
        synchronize(self.layers, self.world)
        # An evaluation is no training: it does not count as slow iterations.
        display.measure(self.progress.iteration)
        with without_compilation():
            metrics = self.last = self.evaluate()
        display.measure(self.progress.iteration)
        loss, error, _ = self.meter.read(self.world)
        progress = self.progress
        line = {
            "iteration": progress.iteration,
            "learning_rate": self.rate(progress.iteration - 1),
            "train": self.meter.line(self.world),
            self.part: metrics,
            "seconds": progress.seconds,
        }
        now: float | None = metrics[self.curve.key]
        if now is not None:
            if self.part == "validation" and (
                progress.best is None or (now > progress.best if self.curve.rising else now < progress.best)
            ):
                progress.best = now
            self._plateau(now)
            display.evaluation(self.part, now)
        self.meter.reset()
        if display.due() or progress.iteration == self.recipe.schedule.iterations:
            display.show(progress.iteration, loss, error)
        if self.world.is_main:
            self.folder.add_metrics(line)
        if self.log:
            self.log(line)

    def _plateau(self, error: float) -> None:
        """Divide the rate by 10 from here on when the validation error has stopped falling (Section 3.4)."""
        plateau, progress = self.recipe.schedule.plateau, self.progress
        if plateau is None:
            return
        if progress.lowest is None or error < progress.lowest - plateau.least:
            progress.lowest, progress.waited = error, 0
            return
        progress.waited += 1
        if progress.waited >= plateau.patience and progress.plateaus < plateau.drops:
            progress.plateaus += 1
            progress.waited = 0

    def _save(self) -> None:
        self._check_finite()
        synchronize(self.layers, self.world)
        tensors = self.tensors()
        if self.world.is_main:
            save_checkpoint(self.folder.path, tensors, self.progress)
        self.world.barrier()

    def _check_finite(self) -> None:
        broken = self.meter.broken_at
        if self.world.size > 1:
            # The first rank may not be the one that saw it.
            seen = self.world.sum_(torch.stack([(broken >= 0).double(), broken.clamp(min=0)]))
            count, total = seen.tolist()
            at = total / count if count else -1
        else:
            at = broken.item()
        if at < 0:
            return
        checkpoints = self.folder.checkpoints()
        kept = (
            f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "no checkpoint was due yet"
        )
        raise Diverged(
            f"the loss is not finite at iteration {math.floor(at):,}; {kept}; try a lower "
            "schedule.learning_rate or a longer schedule.warmup"
        )
