"""What the loop does and shows, whatever is trained."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from conftest import CPU, small_batch, small_model
from torch import Tensor
from torch.nn import functional as F

from residual.data.images import DamagedImage
from residual.data.order import OrderedBatches
from residual.distributed import World
from residual.errors import InputError, Interrupted
from residual.recipes import find, override
from residual.signals import listening
from residual.training.classification import ERRORS, ErrorMeter
from residual.training.display import Display
from residual.training.folder import RunFolder
from residual.training.loop import Diverged, Run, Work
from residual.training.sgd import SGD

T = TypeVar("T")


def run_of(
    folder: Path, begin: Callable[..., Any], settings: list[str], world: World | None = None, **more: Any
) -> Run:
    """Return a run of ``small_model`` whose iterations are what ``begin`` returns."""
    recipe = override(find("digits-resnet8"), settings)
    batches = OrderedBatches(images=8, batch=4, flip=False, seed=0, rank=0, ranks=1)
    work = Work(ErrorMeter(CPU), begin, ERRORS, **more)
    evaluate = {"top1_error": 50.0}.copy
    world = world or World()
    return Run(recipe, small_model(), batches, work, evaluate, "test", RunFolder(folder), world, "again")


def test_an_evaluation_does_not_make_the_time_that_was_waited_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next line would tell all seconds since the run began as those since this one."""
    waited: list[float] = []

    def show(self: Display, iteration: int, loss: float, error: float, seconds: float = 0.0, *_: Any) -> None:
        waited.append(seconds)

    monkeypatch.setattr(Display, "show", show)
    monkeypatch.setattr(Display, "due", lambda self: True)
    settings = ["schedule.iterations=2", "evaluate_every=1"]
    run = run_of(tmp_path, lambda optimizer, rate: lambda iteration: None, settings)
    run.batches.prefetch = SimpleNamespace(waited=7.0)  # type: ignore[assignment]
    run.train()
    assert waited == [7.0] * 4


def test_what_is_done_is_said_before_the_first_iteration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a CPU large images take half a minute for it."""
    said: list[str] = []
    settings = ["schedule.iterations=1", "batch.size=256"]
    run = run_of(
        tmp_path,
        lambda optimizer, rate: lambda iteration: said.extend(capsys.readouterr().err.splitlines()),
        settings,
    )
    run.train()
    assert said == ["digits-resnet8: iteration 0 of 1  256 images an iteration  cpu, 1 thread"]
    # What goes on for its last tests alone has no other.
    run.train()
    assert "iteration 0" not in capsys.readouterr().err


@pytest.mark.parametrize("form", ["paper", "pytorch"])
def test_a_run_learns_by_its_recipes_optimizer(form: str, tmp_path: Path) -> None:
    """Held against PyTorch's for three iterations of one rate, where both forms are the same."""
    images, targets = small_batch(4)
    theirs = small_model()
    usual = torch.optim.SGD(theirs.parameters(), lr=0.2, momentum=0.5, weight_decay=0.03)

    def begin(optimizer: SGD, rate: Callable[[int], float]) -> Callable[[int], None]:
        assert optimizer.form == form

        def iterate(iteration: int) -> None:
            F.cross_entropy(run.model(images), targets).backward()
            optimizer.step(rate(iteration))

        return iterate

    settings = [
        *("optimizer.momentum=0.5", "optimizer.weight_decay=0.03", f"optimizer.form={form}"),
        *("schedule.iterations=3", "schedule.learning_rate=0.2", "schedule.warmup=null", "schedule.drops=[]"),
    ]
    run = run_of(tmp_path, begin, settings)
    run.train()
    for _ in range(3):
        usual.zero_grad()
        F.cross_entropy(theirs(images), targets).backward()
        usual.step()
    for mine, other in zip(run.model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@dataclass(frozen=True)
class Twins(World):
    """Two ranks that are alike, in one process."""

    size: int = 2
    asked: list[bool] = field(default_factory=list)

    def sum_(self, tensor: Tensor) -> Tensor:
        return tensor.mul_(2)

    def any(self, flag: bool, device: torch.device) -> bool:
        self.asked.append(flag)
        return flag

    def gather(self, value: T) -> list[T]:
        return [value, value]

    def barrier(self) -> None:
        """The other one is here."""


def test_ranks_ask_each_other_after_the_last_iteration(tmp_path: Path) -> None:
    """One that has heard a signal since they last did would leave the other alone."""

    def iterate(iteration: int) -> None:
        if iteration == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    finished: list[str] = []
    world = Twins()
    settings = ["schedule.iterations=13", "evaluate_every=100", "checkpoint_every=100"]
    run = run_of(
        tmp_path,
        lambda optimizer, rate: iterate,
        settings,
        world,
        finish=lambda say: finished.append("averaged"),
    )
    with pytest.raises(Interrupted, match="training is complete"):
        run.train()
    assert world.asked == [False] * 12 + [True]
    assert not finished


def test_what_a_signal_stops_after_the_last_iteration_is_the_tests(tmp_path: Path) -> None:
    done: list[int] = []
    settings = ["schedule.iterations=3", "evaluate_every=100", "checkpoint_every=100"]

    def new() -> Run:
        return run_of(tmp_path, lambda optimizer, rate: done.append, settings)

    def stopped() -> dict[str, Any]:
        # What the command's other thread says where this one is busy.
        with listening() as listener:
            assert listener.sentence == left
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError

    left = "stopped; training is complete and only the last tests are left, do them with: again"
    run = new()
    run.evaluate = stopped
    with pytest.raises(Interrupted) as said:
        run.train()
    assert str(said.value) == left
    # As it says.
    run = new()
    (checkpoint,) = run.folder.checkpoints()
    run.restore(checkpoint)
    run.train()
    assert done == [0, 1, 2]
    assert run.last == {"top1_error": 50.0}


def test_ranks_have_a_checkpoint_before_an_evaluation_that_they_cannot_leave(tmp_path: Path) -> None:
    """torchrun kills them half a minute after a signal."""
    settings = ["schedule.iterations=12", "evaluate_every=5", "checkpoint_every=100"]
    run = run_of(tmp_path, lambda optimizer, rate: lambda iteration: None, settings, Twins())

    def killed() -> dict[str, Any]:
        raise MemoryError

    run.evaluate = killed
    with pytest.raises(MemoryError):
        run.train()
    assert [path.name for path in run.folder.checkpoints()] == ["checkpoint-0000005.safetensors"]


@pytest.mark.parametrize("error", [DamagedImage, Diverged])
def test_images_that_cannot_be_read_leave_a_checkpoint(error: type[InputError], tmp_path: Path) -> None:
    def iterate(iteration: int) -> None:
        if iteration == 7:
            raise error("no")

    settings = ["schedule.iterations=12", "evaluate_every=100", "checkpoint_every=100"]
    run = run_of(tmp_path, lambda optimizer, rate: iterate, settings, World())
    with pytest.raises(error):
        run.train()
    found = [path.name for path in run.folder.checkpoints()]
    assert found == (["checkpoint-0000007.safetensors"] if error is DamagedImage else [])


def test_images_to_test_on_that_cannot_be_read_leave_a_checkpoint(tmp_path: Path) -> None:
    settings = ["schedule.iterations=12", "evaluate_every=5", "checkpoint_every=100"]
    run = run_of(tmp_path, lambda optimizer, rate: lambda iteration: None, settings, World())

    def damaged() -> dict[str, Any]:
        raise DamagedImage("no")

    run.evaluate = damaged
    with pytest.raises(DamagedImage):
        run.train()
    assert [path.name for path in run.folder.checkpoints()] == ["checkpoint-0000005.safetensors"]
