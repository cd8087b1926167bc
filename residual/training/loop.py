"""The training loop: iterations, evaluations, checkpoints, log lines."""

import contextlib
import math
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.images import DamagedImage
from ..data.order import OrderedBatches
from ..device import sums_dtype
from ..distributed import World
from ..errors import InputError, Interrupted, plural
from ..recipes.schema import TrainingRecipe
from ..signals import Listener, listening, saying
from .batchnorm import synchronize
from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .display import Display
from .folder import RunFolder
from .schedule import follow_plateau, learning_rate
from .sgd import SGD

#: Ranks with GPUs agree on stopping only every so many iterations: asking waits for the device.
STOP_EVERY = 10


class Diverged(InputError):
    """The loss is no longer a finite number."""


class Meter(ABC):
    """Sums over training images since the last log line, kept on the device: adding never waits for it.

    Attributes:
        sums: (numbers,), as long as ``sums_dtype`` says.
        broken_at: (1,), iteration of the first loss that was not finite, -1 while there is none.
    """

    def __init__(self, numbers: int, device: torch.device) -> None:
        dtype = sums_dtype(device)
        self.sums = torch.zeros(numbers, dtype=dtype, device=device)
        # Not (): PyTorch 2.11 loses what a compiled function writes into such a float64 tensor of a CPU.
        self.broken_at = torch.full((1,), -1.0, dtype=dtype, device=device)

    def note(self, finite: Tensor, iteration: int | Tensor) -> None:
        """Remember the iteration where a loss was not finite, bool (); in place, as a CUDA graph needs it."""
        broken = ~finite & (self.broken_at < 0)
        self.broken_at.copy_(torch.where(broken, iteration, self.broken_at))

    @abstractmethod
    def read(self, world: World) -> tuple[float, float | None, int]:
        """Return the mean loss, the error in percent (None: there is none) and the images, over all ranks."""

    @abstractmethod
    def line(self, world: World) -> dict[str, Any]:
        """Return what a line of metrics.jsonl says of training."""

    def reset(self) -> None:
        self.sums.zero_()

    def state(self) -> list[Tensor]:
        """Return what adding changes, in place."""
        return [self.sums, self.broken_at]


@dataclass(frozen=True)
class Curve:
    """The number in percent that a run's curve is about.

    Attributes:
        key: in what an evaluation gives.
        name: for people.
        rises: whether more is better, as of a precision; an error falls.
    """

    key: str
    name: str
    rises: bool = False


@dataclass(frozen=True)
class Work:
    """What a run learns, and all that differs between one task and another.

    Attributes:
        meter: of its sums.
        begin: from the optimizer and the learning rate of an iteration to what does one, given its number.
        curve: what its evaluations are about.
        layers: BN layers whose moving statistics advance in training.
        finish: called after the last iteration with what says a sentence; None where nothing is left to do.
        rate: the learning rate of an iteration; None for the schedule's.
        batches: how many mini-batches were seen before an iteration; None for one an iteration.
        helps: what helps where other programs take a core, as an option of the command; "" for nothing.
    """

    meter: Meter
    begin: Callable[[SGD, Callable[[int], float]], Callable[[int], None]]
    curve: Curve
    layers: Sequence[_BatchNorm] = ()
    finish: Callable[[Callable[[str], None]], None] | None = None
    rate: Callable[[int], float] | None = None
    batches: Callable[[int], int] | None = None
    helps: Callable[[], str] = lambda: ""


class Run:
    """One training run: the network and all that changes with it.

    Args:
        recipe: what to do, its schedule in iterations.
        model: on its device, in channels-last format.
        batches: this rank's training batches.
        work: what is learned from them.
        evaluate: the network's metrics, the curve's key among them, on the split that the curve is about.
        split: its name, "validation" or "test".
        folder: where rank 0 writes.
        world: the ranks that train together.
        resume_command: what to type to continue the run, for messages.
        log: also called with every line of metrics.jsonl (TensorBoard, say).
        best: called by rank 0 with the line of an evaluation whose validation error (of a curve that rises,
            what is left to 100 %) is the lowest so far.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        model: nn.Module,
        batches: OrderedBatches,
        work: Work,
        evaluate: Callable[[], dict[str, Any]],
        split: str,
        folder: RunFolder,
        world: World,
        resume_command: str,
        log: Callable[[dict[str, Any]], None] | None = None,
        best: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.batches = batches
        self.work = work
        self.evaluate = evaluate
        self.split = split
        self.folder = folder
        self.world = world
        self.resume_command = resume_command
        self.log = log
        self.best = best
        self.device = next(model.parameters()).device
        self.progress = Progress()
        #: The newest evaluation, of this session.
        self.last: dict[str, Any] | None = None
        self.optimizer = SGD(
            model, recipe.optimizer.momentum, recipe.optimizer.weight_decay, recipe.optimizer.form
        )
        self.meter = work.meter
        #: Does one iteration, given its number.
        self.iterate = work.begin(self.optimizer, self.rate)

    def rate(self, iteration: int) -> float:
        """Return the learning rate of an iteration, as things stand."""
        if self.work.rate:
            return self.work.rate(iteration)
        return learning_rate(self.recipe.schedule, iteration, self.progress.plateaus)

    @property
    def tests_left(self) -> str:
        """What is said where a signal comes after the last iteration: no other is done again."""
        return (
            "stopped; training is complete and only the last tests are left, do them with: "
            f"{self.resume_command}"
        )

    @property
    def _epoch(self) -> int:
        """Iterations from one evaluation to the next."""
        return self.recipe.evaluate_every or self.recipe.evaluate_epochs * len(self.batches)

    def _images(self, iteration: int) -> int:
        """Return how many images have been seen before an iteration, over all ranks."""
        batches = self.work.batches(iteration) if self.work.batches else iteration
        return batches * self.recipe.batch.size

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
        self.batches.unreadable |= progress.unreadable

    def train(self) -> None:
        """Train to the recipe's last iteration, average the BN statistics, and log the final errors.

        Raises:
            Interrupted: after SIGINT, SIGTERM or SIGHUP, when a checkpoint has been written.
            Diverged: at a loss that is not finite.
            OSError: when the run folder cannot be written; what was there is untouched.
        """
        schedule = self.recipe.schedule
        self.model.train()
        silent = not self.world.is_main
        name, done, about = self.recipe.name, self.progress.iteration, self.work.curve.name
        where = str(self.device)
        if self.device.type == "cpu":
            where += f", {plural(torch.get_num_threads(), 'thread')}"
        shown = Display(name, schedule.iterations, self._images, done, silent, about, self._epoch, where)
        with listening() as listener, shown as display:
            try:
                several = self.world.size > 1
                with listener.deferred(together=several):
                    self._iterate(listener, display)
                # The last checkpoint is written: what is left is done again.
                together = listener.deferred(together=True) if several else contextlib.nullcontext()
                with saying(self.tests_left), together:
                    if self.work.finish:
                        display.measure(self.progress.iteration)
                        self.work.finish(display.say)
                    self._agree(listener)
                    self._log(display)
            except Interrupted:
                raise self._stopped(listener) from None

    def _iterate(self, listener: Listener, display: Display) -> None:
        """Train to the last iteration, or to a signal; a checkpoint is written then.

        Raises:
            Interrupted: where the iteration or the evaluation in work was left.
        """
        schedule, progress, world, epoch = self.recipe.schedule, self.progress, self.world, self._epoch
        begun = progress.iteration
        before, start = progress.seconds, time.perf_counter()
        # Ranks that wait for each other can only stop together.
        granted = listener.granted if world.size == 1 else contextlib.nullcontext
        try:
            due = 0 < progress.iteration < schedule.iterations and progress.iteration % epoch == 0
            if due and self.meter.read(world)[2]:
                # There are images that no log line is about: a signal has ended the evaluation. A session
                # that had done it, and was killed before its first checkpoint, has left its line.
                if world.is_main:
                    self.folder.cut_metrics(progress.iteration - 1)
                self._log(display, granted)
            while progress.iteration < schedule.iterations:
                # Before anything changes, where all images of an iteration are read at once.
                with self._saved_where_damaged(progress.iteration > begun and not self.work.batches):
                    self.iterate(progress.iteration)
                progress.iteration += 1
                progress.seconds = before + time.perf_counter() - start
                last = progress.iteration == schedule.iterations
                if display.due():
                    self._show(display)
                if progress.iteration % epoch == 0 and not last:
                    if world.size > 1:
                        # Ranks cannot leave an evaluation, and torchrun kills them 30 seconds after a signal.
                        self._save()
                    with self._saved_where_damaged():
                        self._log(display, granted)
                if last or progress.iteration % self.recipe.checkpoint_every == 0:
                    self._save()
                on_cpu = self.device.type == "cpu"
                if world.size == 1 or on_cpu or last or progress.iteration % STOP_EVERY == 0:
                    self._agree(listener)
        except Interrupted:
            self._save()
            raise

    @contextlib.contextmanager
    def _saved_where_damaged(self, unchanged: bool = True) -> Iterator[None]:
        """Write a checkpoint where an image ends the run, which goes on when that is mended.

        Args:
            unchanged: whether the run is between two iterations then; ranks are not at the same place.
        """
        try:
            yield
        except DamagedImage:
            if unchanged and self.world.size == 1:
                self._save()
            raise

    def _agree(self, listener: Listener) -> None:
        """Raise Interrupted in all ranks where one has heard a signal."""
        if self.world.any(listener.received is not None, self.device):
            raise self._stopped(listener)

    def _stopped(self, listener: Listener) -> Interrupted:
        at = f"stopped at iteration {self.progress.iteration:,}"
        if checkpoints := self.folder.checkpoints():
            at += f" with a checkpoint of {checkpoints[-1].stat().st_size / 1e6:.1f} MB"
        sentence = f"{at}; continue with: {self.resume_command}"
        if self.progress.iteration == self.recipe.schedule.iterations:
            sentence = self.tests_left
        return Interrupted(sentence, listener.received or signal.SIGTERM)

    def _show(self, display: Display) -> None:
        if self.world.size == 1:
            self._check_finite()
        # What the other ranks have seen is not asked for between evaluations.
        loss, error, _ = self.meter.read(World())
        display.show(self.progress.iteration, loss, error, self.batches.waited, self.work.helps())

    def _log(
        self,
        display: Display,
        granted: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """Evaluate, write a line of metrics.jsonl, and start new training sums.

        Args:
            granted: in what the evaluation is done: a signal may end it.
        """
        self._check_finite()
        synchronize(self.work.layers, self.world)
        with granted(), display.evaluating(self.progress.iteration):
            metrics = self.last = self.evaluate()
        loss, error, _ = self.meter.read(self.world)
        progress = self.progress
        line = {
            "iteration": progress.iteration,
            "learning_rate": self.rate(progress.iteration - 1),
            "train": self.meter.line(self.world),
            self.split: metrics,
            "seconds": progress.seconds,
        }
        now: float | None = metrics[self.work.curve.key]
        if now is not None:
            missing = 100 - now if self.work.curve.rises else now
            if self.split == "validation" and (progress.best is None or missing < progress.best):
                progress.best = missing
                if self.best and self.world.is_main:
                    self.best(line)
            follow_plateau(self.recipe.schedule, progress, missing)
            display.evaluation(self.split, now)
        self.meter.reset()
        if display.due() or progress.iteration == self.recipe.schedule.iterations:
            display.show(progress.iteration, loss, error, self.batches.waited)
        if self.world.is_main:
            self.folder.add_metrics(line)
        if self.log:
            self.log(line)

    def _save(self) -> None:
        self._check_finite()
        synchronize(self.work.layers, self.world)
        tensors = self.tensors()
        for found in self.world.gather(self.batches.unreadable):
            self.progress.unreadable |= found
        if self.world.is_main:
            save_checkpoint(self.folder.path, tensors, self.progress)
        self.world.barrier()

    def _check_finite(self) -> None:
        broken = self.meter.broken_at
        if self.world.size > 1:
            # The first rank may not be the one that saw it.
            seen = self.world.sum_(torch.cat([(broken >= 0).to(broken.dtype), broken.clamp(min=0)]))
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
