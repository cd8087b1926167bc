"""What iterations on a GPU are made of, checked on a CPU: BN groups told apart, rates from tables."""

import copy

import pytest
import torch
from torch import Tensor, nn

from residual import build_model
from residual.data.dataset import Dataset
from residual.data.resident import ResidentBatches
from residual.distributed import World
from residual.models.preprocessing import Preprocessing
from residual.recipes.schema import Schedule
from residual.training import iteration as iterations
from residual.training.batchnorm import GroupedBatchNorm2d, batch_norms, tell_groups_apart
from residual.training.iteration import CapturedIterations, EagerIterations, PlannedBatches, compile_regions
from residual.training.sgd import SGD
from residual.training.step import Meter, Step

CPU = torch.device("cpu")
BATCH, GROUP = 16, 4


def model_of(name: str = "cifar_resnet8") -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, classes=4, in_channels=1).train().to(memory_format=torch.channels_last)


def batches_of(pad: int = 1) -> ResidentBatches:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (40, 1, 8, 8), generator=generator, dtype=torch.uint8)
    targets = torch.randint(4, (40,), generator=generator)
    dataset = Dataset("generated", tuple("abcd"), images, targets, torch.arange(40))
    return ResidentBatches(dataset, Preprocessing(torch.full((1,), 0.5)), BATCH, pad, True, 0, CPU)


def step_of(model: nn.Module, at_once: int) -> Step:
    return Step(model, SGD(model, 0.9, 1e-4, "paper"), at_once, World(), Meter(CPU))


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_plain8", "resnet18"])
def test_groups_told_apart_train_as_groups_one_after_the_other(name: str) -> None:
    x = torch.randn(BATCH, 1, 64, 64, generator=torch.Generator().manual_seed(2)).double()
    y = torch.arange(BATCH) % 4
    apart, together = model_of(name).double(), model_of(name).double()
    tell_groups_apart(together, GROUP)
    one, other = step_of(apart, GROUP), step_of(together, BATCH)
    for number in range(2):
        one(x, y, 0.02, number)
        other(x, y, 0.02, number)
    for (key, a), b in zip(apart.state_dict().items(), together.state_dict().values(), strict=True):
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


def test_telling_groups_apart_keeps_the_state_dict_and_the_parameters() -> None:
    model = model_of()
    before, parameters = copy.deepcopy(model.state_dict()), list(model.parameters())
    tell_groups_apart(model, GROUP)
    assert all(isinstance(layer, GroupedBatchNorm2d) for layer in batch_norms(model))
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))


def test_one_group_and_evaluation_are_plain_bn() -> None:
    plain = nn.BatchNorm2d(3)
    grouped = GroupedBatchNorm2d(copy.deepcopy(plain), GROUP)
    for count in (GROUP, GROUP + 1):
        x = torch.randn(count, 3, 5, 5)
        torch.testing.assert_close(grouped(x), plain(x), rtol=0, atol=0)
    x = torch.randn(2 * GROUP, 3, 5, 5)
    assert not torch.allclose(grouped(x), plain(x))
    grouped.load_state_dict(plain.state_dict())
    torch.testing.assert_close(grouped.eval()(x), plain.eval()(x), rtol=0, atol=0)


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of five rows, so that a short run fills them several times."""
    monkeypatch.setattr(iterations, "ROWS", 5)


@pytest.mark.usefixtures("few_rows")
def test_iterations_from_tables_are_the_eager_ones() -> None:
    schedule = Schedule(iterations=12, learning_rate=0.05)
    states: list[dict[str, Tensor]] = []
    meters = []
    for captured in (False, True):
        model, batches = model_of(), batches_of()
        step = step_of(model, GROUP)
        iterate = (
            CapturedIterations(step, batches, schedule, CPU)
            if captured
            else EagerIterations(step, batches, schedule, 0, 0)
        )
        for number in range(12):
            iterate(number)
        states.append(model.state_dict())
        meters.append(step.meter.sums)
    for key, value in states[0].items():
        # A rate in a tensor is rounded to float32 before it meets a gradient.
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(meters[1], meters[0])


@pytest.mark.usefixtures("few_rows")
def test_iterations_from_tables_can_start_anywhere() -> None:
    schedule = Schedule(iterations=12, learning_rate=0.05)
    model, batches = model_of(), batches_of()
    through = CapturedIterations(step_of(model, GROUP), batches, schedule, CPU)
    for number in range(7):
        through(number)
    middle, velocities = copy.deepcopy(model), copy.deepcopy(through.step.optimizer.velocities)
    for number in range(7, 12):
        through(number)
    step = step_of(middle, GROUP)
    for name, value in velocities.items():
        step.optimizer.velocities[name].copy_(value)
    resumed = CapturedIterations(step, batches, schedule, CPU)
    for number in range(7, 12):
        resumed(number)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(middle.state_dict()[key], value, rtol=0, atol=0)


def test_resident_batches_are_planned() -> None:
    batches = batches_of()
    assert isinstance(batches, PlannedBatches)
    inputs, targets = batches.assemble(batches.plan(3))
    again, same = batches(3)
    assert torch.equal(inputs, again)
    assert torch.equal(targets, same)


def test_bfloat16_keeps_the_state_in_float32() -> None:
    model = model_of()
    step = Step(model, SGD(model, 0.9, 1e-4, "paper"), GROUP, World(), Meter(CPU), "bfloat16")
    inputs, targets = batches_of()(0)
    reference = copy.deepcopy(model)
    step(inputs, targets, 0.05, 0)
    step_of(reference, GROUP)(inputs, targets, 0.05, 0)
    assert all(value.dtype in (torch.float32, torch.int64) for value in model.state_dict().values())
    moved = model.state_dict()["conv1.weight"]
    # Close to the float32 step, but not the same: the products were in bfloat16.
    torch.testing.assert_close(moved, reference.state_dict()["conv1.weight"], rtol=0.1, atol=0.02)
    assert not torch.equal(moved, reference.state_dict()["conv1.weight"])


def test_blocks_of_one_shape_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps a 1202-layer network from compiling for an hour: distinct blocks count, not blocks."""
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        compiled.append(len(inputs))
        return graph.forward

    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: original(self, backend=backend, **how))
    counts = {}
    x = torch.randn(2 * GROUP, 1, 8, 8)
    for name in ("cifar_resnet14", "cifar_resnet38"):
        torch._dynamo.reset()
        compiled.clear()
        model = model_of(name)
        tell_groups_apart(model, GROUP)
        compile_regions(model)
        model(x).sum().backward()
        counts[name] = len(compiled)
    torch._dynamo.reset()
    # The first BN, and of each width the block that changes the shape and the one that does not.
    assert counts["cifar_resnet14"] == counts["cifar_resnet38"] <= 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.usefixtures("few_rows")
def test_a_recorded_iteration_is_the_eager_one() -> None:
    device = torch.device("cuda")
    schedule = Schedule(iterations=20, learning_rate=0.02)
    states, sums = [], []
    for recorded in (False, True):
        model = model_of().to(device)
        batches = batches_of()
        batches.images, batches.targets = batches.images.to(device), batches.targets.to(device)
        batches.prepare = Preprocessing(torch.full((1,), 0.5)).to(device)
        if recorded:
            tell_groups_apart(model, GROUP)
            compile_regions(model)
        optimizer = SGD(model, 0.9, 1e-4, "paper")
        step = Step(model, optimizer, BATCH if recorded else GROUP, World(), Meter(device), "float32")
        iterate = (
            CapturedIterations(step, batches, schedule, device)
            if recorded
            else EagerIterations(step, batches, schedule, 0, 0)
        )
        for number in range(8):
            iterate(number)
        states.append({k: v.cpu() for k, v in model.state_dict().items() if "num_batches" not in k})
        sums.append(step.meter.sums.cpu())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=2e-2, atol=2e-3)
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-2, atol=1e-2)
