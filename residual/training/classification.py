"""What a run does in an iteration of classification, and the sums that its log lines need."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..device import full_float32
from ..distributed import World
from ..errors import plural
from ..models.own import OwnNetwork
from ..randomness import Stream, mix
from ..recipes import Recipe
from ..terminal import counted, note
from .batchnorm import AVERAGED_BATCHES, average_statistics, batch_norms, tell_groups_apart
from .groups import has_dropout, one_thread_helps
from .iteration import (
    Batches,
    CapturedIterations,
    EagerIterations,
    FastOrEager,
    Feed,
    Planned,
    PlannedBatches,
    PreparedIterations,
    Sent,
    SentBatches,
    compile_regions,
    uncompile,
    without_compilation,
)
from .loop import Curve, Meter, Work
from .sgd import SGD
from .step import Step

ERRORS = Curve("top1_error", "errors")

#: Kinds of devices on which networks are compiled.
COMPILED = {"cuda"}
#: Side of images in files up to which iterations are recorded: larger ones keep a GPU busy without that, and
#: what a recording takes of memory it keeps.
SMALL = 128


class ErrorMeter(Meter):
    """The sum of losses, the number of errors and the number of images."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(3, device)

    def add(self, loss: Tensor, scores: Tensor, targets: Tensor, iteration: int | Tensor) -> None:
        """Count one group: its mean loss, its scores (n, K) and targets (n,).

        In place, and without a constant from the host, so that it can be a part of a CUDA graph.
        """
        count = torch.full_like(loss, len(targets), dtype=self.sums.dtype)
        errors = (scores.argmax(dim=1) != targets).sum()
        self.sums.add_(torch.stack([loss.to(count.dtype) * count, errors.to(count.dtype), count]))
        self.note(torch.isfinite(loss), iteration)

    def read(self, world: World) -> tuple[float, float, int]:
        loss, errors, count = world.sum_(self.sums.clone()).tolist()
        return loss / max(count, 1), 100 * errors / max(count, 1), int(count)

    def line(self, world: World) -> dict[str, float]:
        loss, error, images = self.read(world)
        return {"loss": loss, "top1_error": error, "images": images}


def classification_work(
    model: nn.Module,
    batches: Batches,
    recipe: Recipe,
    world: World,
    device: torch.device,
    eager: bool = False,
) -> Work:
    """Return what a run learns, for the training loop.

    Args:
        model: a network or an objective, on its device, in its memory format; on a GPU its BN layers are
            replaced and its blocks compiled, in place, unless it is a user's own.
        batches: this rank's inputs and targets by iteration.
        recipe: its schedule in iterations.
        eager: on a GPU, run PyTorch's kernels one by one, without compiling and recording them.
    """
    meter = ErrorMeter(device)
    group = min(recipe.batch.bn_group, recipe.batch.size // world.size)
    # What a user's own network keeps, draws and changes, nobody knows: it is neither compiled nor recorded.
    fast = device.type in COMPILED and not eager and not isinstance(model, OwnNetwork)
    if fast:
        tell_groups_apart(model, group, recipe.batch.size // world.size // group)
        compile_regions(model)
    at_once = recipe.batch.size // world.size if fast else group
    steps: list[Step] = []

    def helps() -> str:
        return one_thread_helps(device) if steps and steps[-1].waits_in_layers else ""

    def begin(optimizer: SGD, rate: Callable[[int], float]) -> Callable[[int], None]:
        step = Step(model, optimizer, at_once, world, meter, recipe.precision, recipe.schedule.iterations)
        steps.append(step)
        iterate = EagerIterations(step, batches, rate, recipe.seed, world.rank)
        if not fast:
            return iterate
        best: PreparedIterations = iterate
        feed: Feed | None = None
        if isinstance(batches, PlannedBatches) and not recipe.schedule.plateau:
            feed = Planned(batches, rate, device)
        elif isinstance(batches, SentBatches) and batches.size <= SMALL:
            feed = Sent(batches, rate, device)
        if feed and world.size == 1 and not has_dropout(model):
            best = CapturedIterations(step, feed, device)
            best.compile()

        def give_up(reason: str) -> None:
            # As with --eager: one group at a time, on which BN layers with groups are plain ones.
            uncompile(model)
            step.uncompile()
            step.group = group
            optimizer.drop_gradients()
            if world.is_main:
                said = f"{recipe.name}: compiling and recording failed, so it goes on kernel by kernel"
                note(f"{said}, slower, to the same numbers ({reason})")

        return FastOrEager(best, iterate, give_up, lambda failed: world.any(failed, device))

    def average(say: Callable[[str], None]) -> None:
        first = recipe.schedule.iterations
        iterations = range(first, first + min(AVERAGED_BATCHES, len(batches)))
        say(f"averaging BN statistics over {plural(len(iterations), 'mini-batch', 'mini-batches')}")
        # Dropout draws here too, the same whatever this session has drawn before.
        torch.manual_seed(mix(recipe.seed, Stream.DROPOUT, first, world.rank))
        # As in the tests that use them, whatever the iterations' precision.
        what = f"{recipe.name}: mini-batches"
        with (
            full_float32(device),
            without_compilation() if fast else nullcontext(),
            counted(what, silent=not world.is_main) as show,
        ):
            average_statistics(model, batches, iterations, group, world, show)

    layers = batch_norms(model)
    return Work(meter, begin, ERRORS, layers, average if layers else None, helps=helps)
