"""BN groups side by side: the same numbers as one after the other, and nothing half done."""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import CPU, small_batch, small_model
from torch import Tensor, nn

from residual import build_model, signals
from residual.distributed import World
from residual.errors import Interrupted
from residual.models.own import OwnNetwork
from residual.training import groups
from residual.training.batchnorm import batch_norms
from residual.training.classification import ErrorMeter
from residual.training.sgd import SGD
from residual.training.step import Step


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def trained(model: nn.Module, threads: int, precision: str = "tf32") -> tuple[nn.Module, ErrorMeter, Step]:
    """Return a network after two steps of four groups of four images."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    meter = ErrorMeter(CPU)
    step = Step(model, SGD(model, 0.9, 1e-4, "paper"), 4, World(), meter, precision)
    for iteration in range(2):
        step(*small_batch(16, seed=iteration), 0.1, iteration)
    torch.set_num_threads(before)
    return model, meter, step


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_groups_side_by_side_are_the_groups_one_after_the_other(precision: str) -> None:
    one, meter, _ = trained(small_model(), 1, precision)
    two, other, step = trained(small_model(), 2, precision)
    assert step._beside is not None
    assert step._beside.count == 2
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(meter.sums, other.sums)
    for a, b in zip(batch_norms(one), batch_norms(two), strict=True):
        torch.testing.assert_close(a.running_mean, b.running_mean)
        torch.testing.assert_close(a.running_var, b.running_var)
        # Four groups in each of two steps.
        assert int(a.num_batches_tracked) == int(b.num_batches_tracked) == 8


def test_which_go_side_by_side(two_threads: None) -> None:
    model = small_model()
    small = [torch.zeros(1).expand(64, 3, 64, 64)] * 4
    assert groups.at_once(model, small) == 2
    assert groups.at_once(model, small[:1]) == 1
    # Two groups of Section 3.4's would take twice the memory, and are no faster.
    assert groups.at_once(model, [torch.zeros(1).expand(32, 3, 224, 224)] * 8) == 1
    # Random numbers would be drawn in any order.
    assert groups.at_once(nn.Sequential(model, nn.Dropout()), small) == 1
    with torch.device("meta"):
        assert groups.at_once(build_model("vgg16"), small) == 1
    # What a network of the user's own does is not known.
    assert groups.at_once(OwnNetwork.__new__(OwnNetwork), small) == 1
    torch.set_num_threads(1)
    assert groups.at_once(model, small) == 1


def test_other_threads_have_all_cores_afterwards(two_threads: None) -> None:
    """What a thread of PyTorch's takes is the default of those that begin later."""
    side = groups.SideBySide(small_model().train(), 2)
    shares = list(side._pool.map(lambda _: torch.get_num_threads(), range(8)))
    assert shares == [1] * 8
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2


def test_a_signal_leaves_all_as_it_was(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    optimizer, meter = SGD(model, 0.9, 1e-4, "paper"), ErrorMeter(CPU)
    step = Step(model, optimizer, 4, World(), meter)
    x, y = small_batch(16)
    step(x, y, 0.1, 0)
    state, sums = copy.deepcopy(model.state_dict()), meter.sums.clone()
    velocities = [value.clone() for value in optimizer.velocities.values()]
    asked = []

    def second() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise Interrupted("stopped", 15)

    monkeypatch.setattr(signals, "check", second)
    with pytest.raises(Interrupted):
        step(x, y, 0.1, 1)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert torch.equal(meter.sums, sums)
    assert all(torch.equal(a, b) for a, b in zip(velocities, optimizer.velocities.values(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    # It goes on as if nothing had been.
    monkeypatch.undo()
    step(x, y, 0.1, 1)
    again = small_model()
    other = Step(again, SGD(again, 0.9, 1e-4, "paper"), 4, World(), ErrorMeter(CPU))
    other(x, y, 0.1, 0)
    other(x, y, 0.1, 1)
    assert torch.equal(next(model.parameters()), next(again.parameters()))


def test_what_is_wrong_in_a_thread_is_said(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    step = Step(model, SGD(model, 0.9, 1e-4, "paper"), 4, World(), ErrorMeter(CPU))

    def broken(self: nn.Module, x: Tensor) -> Tensor:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(type(model), "forward", broken)
    with pytest.raises(RuntimeError, match="no memory left"):
        step(*small_batch(16), 0.1, 0)
