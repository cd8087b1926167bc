"""What iterations on a GPU are made of, checked on a CPU: rates and batches from tables."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, small_batch, small_model, step_of
from torch import Tensor, nn

from residual.data.colour import ColourNoise
from residual.data.crops import ScaleCrop
from residual.data.dataset import Dataset
from residual.data.folder import FolderIndex
from residual.data.resident import ResidentBatches
from residual.data.stream import StreamBatches
from residual.device import arithmetic, full_float32
from residual.distributed import World
from residual.models import Classifier, build_model
from residual.models.own import build_own
from residual.models.preprocessing import Preprocessing
from residual.recipes import Recipe, find, override
from residual.recipes.schema import Schedule
from residual.training import classification
from residual.training import iteration as iterations
from residual.training.batchnorm import GroupedBatchNorm2d, batch_norms, tell_groups_apart
from residual.training.classification import ErrorMeter, classification_work
from residual.training.iteration import (
    CapturedIterations,
    EagerIterations,
    FastOrEager,
    Planned,
    PlannedBatches,
    Sent,
    SentBatches,
    compile_regions,
)
from residual.training.schedule import learning_rate
from residual.training.sgd import SGD
from residual.training.step import Step

BATCH, GROUP = 16, 4


def batches_of(pad: int = 1, device: torch.device = CPU) -> ResidentBatches:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (40, 1, 8, 8), generator=generator, dtype=torch.uint8)
    targets = torch.randint(4, (40,), generator=generator)
    dataset = Dataset("generated", tuple("abcd"), images, targets, torch.arange(40))
    preprocessing = Preprocessing(torch.full((1,), 0.5)).to(device)
    return ResidentBatches(dataset, preprocessing, BATCH, pad, True, 0, device)


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of five rows, so that a short run fills them several times."""
    monkeypatch.setattr(iterations, "ROWS", 5)


@pytest.mark.usefixtures("few_rows")
def test_iterations_from_tables_are_the_eager_ones() -> None:
    rate = partial(learning_rate, Schedule(iterations=12, learning_rate=0.05))
    states: list[dict[str, Tensor]] = []
    meters = []
    for captured in (False, True):
        model, batches = small_model(), batches_of()
        step = step_of(model, GROUP)
        iterate = (
            CapturedIterations(step, Planned(batches, rate, CPU), CPU)
            if captured
            else EagerIterations(step, batches, rate, 0, 0)
        )
        for number in range(12):
            iterate(number)
        states.append(model.state_dict())
        meters.append(step.meter.sums)
    for key, value in states[0].items():
        # A rate in a tensor is rounded to float32 before it meets a gradient.
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(meters[1], meters[0])


def from_files(index: FolderIndex, device: torch.device = CPU) -> StreamBatches:
    noise = ColourNoise(torch.tensor([0.003, 0.02, 0.2]), torch.eye(3))
    preprocessing = Preprocessing(torch.full((3, 8, 8), 0.4)).to(device)
    return StreamBatches(index, ScaleCrop(8, 9, 12), preprocessing, BATCH, True, noise, 0, device)


def coloured_model() -> Classifier:
    torch.manual_seed(0)
    model = build_model("cifar_resnet8", classes=3).train()
    return model.to(memory_format=torch.channels_last)


def test_iterations_that_are_sent_are_the_eager_ones(plain_colours: FolderIndex) -> None:
    """Of images in files; from the first iteration on, and from a later one."""
    rate = partial(learning_rate, Schedule(iterations=9, learning_rate=0.05))
    for first in (0, 4):
        states, meters = [], []
        for captured in (False, True):
            model, batches = coloured_model(), from_files(plain_colours)
            assert isinstance(batches, SentBatches)
            step = step_of(model, GROUP)
            asked: list[int] = []
            recorder = CapturedIterations(step, Sent(batches, rate, CPU), CPU)
            iterate = recorder if captured else EagerIterations(step, batches, rate, 0, 0)
            read = batches.read
            batches.read = lambda i, read=read, asked=asked: (asked.append(i), read(i))[1]  # type: ignore
            for number in range(first, 9):
                iterate(number)
            # Each is read once, that which is recorded with as well.
            assert asked == list(range(first, 9))
            states.append(model.state_dict())
            meters.append(step.meter.sums)
        for key, value in states[0].items():
            torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(meters[1], meters[0])


def test_few_batches_are_sent_before_they_are_needed(
    plain_colours: FolderIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's events, made by hand: the oldest is waited for before a third batch follows."""
    waited: list[int] = []

    class Event:
        made = 0

        def __init__(self, blocking: bool) -> None:
            assert blocking
            self.number, Event.made = Event.made, Event.made + 1

        def record(self, stream: object) -> None:
            assert stream == "the stream"

        def synchronize(self) -> None:
            waited.append(self.number)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the stream")
    feed = Sent(from_files(plain_colours), lambda _: 0.1, CPU)
    feed.device = torch.device("cuda")
    monkeypatch.setattr(iterations, "send", lambda part, device: part)
    for number in range(5):
        feed.fill(number)
        feed.fill(number)
        assert waited == list(range(number - 1))


def test_dropout_draws_anew_in_every_iteration_and_on_every_rank() -> None:
    drawn: list[float] = []
    step: Any = lambda *_: drawn.append(torch.rand(()).item())  # noqa: E731
    for seed, rank, number in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0)):
        EagerIterations(step, batches_of(), lambda _: 0.1, seed, rank)(number)
    assert len(set(drawn)) == 4
    assert drawn[0] == drawn[-1]


@pytest.mark.usefixtures("few_rows")
def test_iterations_from_tables_can_start_anywhere() -> None:
    rate = partial(learning_rate, Schedule(iterations=12, learning_rate=0.05))
    model, batches = small_model(), batches_of()
    through = CapturedIterations(step_of(model, GROUP), Planned(batches, rate, CPU), CPU)
    for number in range(7):
        through(number)
    middle, velocities = copy.deepcopy(model), copy.deepcopy(through.step.optimizer.velocities)
    for number in range(7, 12):
        through(number)
    step = step_of(middle, GROUP)
    for name, value in velocities.items():
        step.optimizer.velocities[name].copy_(value)
    resumed = CapturedIterations(step, Planned(batches, rate, CPU), CPU)
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


@pytest.mark.long
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
        model = small_model(name)
        tell_groups_apart(model, GROUP, 2)
        compile_regions(model)
        model(x).sum().backward()
        counts[name] = len(compiled)
    torch._dynamo.reset()
    # The first BN, and of each width the block that changes the shape and the one that does not.
    assert counts["cifar_resnet14"] == counts["cifar_resnet38"] <= 6


# --- where compiling or recording fails ---


def trained(recipe: Recipe, eager: bool, device: torch.device = CPU) -> tuple[nn.Module, Tensor]:
    """Return a network after five iterations of a run, and the sums of its log."""
    model = small_model().to(device)
    work = classification_work(model, batches_of(device=device), recipe, World(), device, eager)
    optimizer = SGD(model, 0.9, 1e-4, "paper")
    iterate = work.begin(optimizer, partial(learning_rate, recipe.schedule))
    for number in range(5):
        iterate(number)
    return model, work.meter.sums


def assert_same(
    model: nn.Module, other: nn.Module, sums: Tensor, others: Tensor, rtol: float = 0, atol: float = 0
) -> None:
    mine, theirs = (one.state_dict() | {"sums": total} for one, total in ((model, sums), (other, others)))
    for key, value in theirs.items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(mine[key], value, rtol=rtol, atol=atol, msg=f"{key}: {{}}".format)


@pytest.fixture
def fast_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is compiled and recorded on a GPU is here, by a compiler that leaves all as it is."""
    monkeypatch.setattr(classification, "COMPILED", {"cpu"})
    compile_with(monkeypatch, lambda graph, inputs: graph.forward)
    yield
    torch._dynamo.reset()


def compile_with(patch: pytest.MonkeyPatch, backend: Callable[..., object]) -> None:
    original = torch.compile
    patch.setattr(torch, "compile", lambda what, **how: original(what, **({"backend": backend} | how)))


SHORT = override(
    find("digits-resnet20"), [f"batch.size={BATCH}", f"batch.bn_group={GROUP}", "schedule.iterations=50"]
)
#: Its learning rate follows the validation error, so that nothing can be recorded.
NOT_RECORDED = override(SHORT, ["schedule.plateau.patience=5", "data.validation=100"])


@pytest.mark.usefixtures("fast_on_a_cpu")
def test_a_users_own_network_is_left_as_it_is(tmp_path: Path) -> None:
    """Numbers that it draws in Python would be drawn once for all; and its BN may have no weights."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "def build(classes, in_channels):\n"
        "    layers = [nn.Conv2d(in_channels, 6, 3), nn.BatchNorm2d(6, affine=False)]\n"
        "    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes))\n"
    )
    model = build_own(f"{file}:build", 4, 1)
    work = classification_work(model, batches_of(), SHORT, World(), CPU)
    iterate = work.begin(SGD(model, 0.9, 1e-4, "paper"), partial(learning_rate, SHORT.schedule))
    iterate(0)
    assert isinstance(iterate, EagerIterations)
    assert iterate.step.group == GROUP
    assert [type(layer) for layer in batch_norms(model)] == [nn.BatchNorm2d]


@pytest.mark.usefixtures("fast_on_a_cpu")
@pytest.mark.parametrize("recipe", [SHORT, NOT_RECORDED], ids=["recorded", "compiled"])
def test_preparing_leaves_no_trace(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    fast, eager = trained(recipe, eager=False), trained(recipe, eager=True)
    assert all(isinstance(layer, GroupedBatchNorm2d) for layer in batch_norms(fast[0]))
    assert_same(fast[0], eager[0], fast[1], eager[1], rtol=1e-3, atol=1e-5)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("fast_on_a_cpu")
@pytest.mark.parametrize("recipe", [SHORT, NOT_RECORDED], ids=["recorded", "compiled"])
def test_without_a_compiler_a_run_goes_on_to_the_same_bits(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_compiler(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nMore.")

    compile_with(monkeypatch, no_compiler)
    slow, eager = trained(recipe, eager=False), trained(recipe, eager=True)
    assert_same(slow[0], eager[0], slow[1], eager[1])
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("note: digits-resnet20: compiling and recording failed, so it goes on kernel by")
    assert "Failed to find C compiler" in said
    assert "(gcc)" in said


@pytest.mark.usefixtures("fast_on_a_cpu")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "the GPU's memory ran out; free some"),
        (RuntimeError("CUDA error: operation not permitted when stream is capturing"), "when stream is capt"),
    ],
    ids=["memory", "driver"],
)
def test_where_recording_fails_a_run_goes_on_to_the_same_bits(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        work()
        work()
        raise error

    monkeypatch.setattr(iterations, "record", fails)
    slow, eager = trained(SHORT, eager=False), trained(SHORT, eager=True)
    assert_same(slow[0], eager[0], slow[1], eager[1])
    (said,) = capsys.readouterr().err.splitlines()
    assert reason in said


def test_ranks_go_on_together_where_one_of_them_cannot_compile() -> None:
    done: list[str] = []

    class Fast:
        def prepare(self, iteration: int) -> None:
            done.append("prepared")

        def __call__(self, iteration: int) -> None:
            done.append("fast")

    def slow(iteration: int) -> None:
        done.append(f"slow {iteration}")

    iterate = FastOrEager(Fast(), slow, done.append, agree=lambda failed: True)
    assert not iterate.fell_back
    iterate(7)
    assert iterate.fell_back
    iterate(8)
    assert done == ["prepared", "on another rank", "slow 7", "slow 8"]


@pytest.mark.usefixtures("fast_on_a_cpu")
def test_an_assembly_that_is_compiled_is_one_graph_and_the_same_batch() -> None:
    batches = batches_of()
    plan = batches.plan(3)
    # fullgraph: an error where the compiler would give up in the middle.
    inputs, targets = torch.compile(batches.assemble, fullgraph=True, dynamic=False)(plan)
    expected, theirs = batches.assemble(plan)
    assert torch.equal(inputs, expected)
    assert inputs.stride() == expected.stride()
    assert torch.equal(targets, theirs)


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_dsn"])
def test_a_loss_and_sums_that_are_compiled_are_a_graph_each_and_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network by its scores, and an objective whose loss depends on the iteration."""
    original = torch.compile
    # What a compiler makes kernels of, one operation after the other. fullgraph: an error where it would give
    # up in the middle.
    backend = "aot_eager_decomp_partition"
    monkeypatch.setattr(
        torch, "compile", lambda what, **how: original(what, backend=backend, fullgraph=True, **how)
    )
    weights, sums = [], []
    for compiled in (False, True):
        network = small_model(name)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        step = step_of(network.objective(), BATCH)
        step.iterations = 10
        if compiled:
            step.compile()
        # As they are in a recorded iteration.
        rate, numbers = torch.tensor(0.05), torch.arange(10.0, dtype=torch.float64)
        x, targets = small_batch(BATCH)
        step(x, targets, rate, numbers[7])
        weights.append(copy.deepcopy(network.state_dict()))
        sums.append(step.meter.sums.clone())
        assert step.meter.broken_at == -1
        step(x * float("nan"), targets, torch.zeros(()), numbers[8])
        assert step.meter.broken_at == 8
    torch._dynamo.reset()
    assert sums[1][1:].tolist() == sums[0][1:].tolist()
    assert sums[0][2] == BATCH
    torch.testing.assert_close(sums[1][0], sums[0][0], rtol=1e-6, atol=0)
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.usefixtures("few_rows")
def test_a_recorded_iteration_is_the_eager_one() -> None:
    device = torch.device("cuda")
    rate = partial(learning_rate, Schedule(iterations=20, learning_rate=0.02))
    states, sums = [], []
    for recorded in (False, True):
        model = small_model().to(device)
        batches = batches_of(device=device)
        if recorded:
            tell_groups_apart(model, GROUP, BATCH // GROUP)
            compile_regions(model)
        optimizer = SGD(model, 0.9, 1e-4, "paper")
        step = Step(model, optimizer, BATCH if recorded else GROUP, World(), ErrorMeter(device), "float32")
        captured = CapturedIterations(step, Planned(batches, rate, device), device)
        if recorded:
            captured.compile()
        iterate = captured if recorded else EagerIterations(step, batches, rate, 0, 0)
        # Else PyTorch's convolutions would round factors to TF32.
        with full_float32(device):
            for number in range(8):
                iterate(number)
        states.append({k: v.cpu() for k, v in model.state_dict().items() if "num_batches" not in k})
        sums.append(step.meter.sums.cpu())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-3, atol=1e-3)


def trained_on_files(
    index: FolderIndex, device: torch.device, eager: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the weights after eight iterations of images in files, and the log's sums."""
    model, batches = coloured_model().to(device), from_files(index, device)
    recipe = override(
        find("imagenet-resnet18"),  # its rate falls with the error
        ["precision=float32", f"batch.size={BATCH}", f"batch.bn_group={GROUP}", "schedule.iterations=20"],
    )
    work = classification_work(model, batches, recipe, World(), device, eager)
    optimizer = SGD(model, 0.9, 1e-4, "paper")
    iterate = work.begin(optimizer, lambda number: 0.02 / (1 + number))
    # Else PyTorch's convolutions would round factors to TF32.
    with full_float32(device):
        for number in range(8):
            iterate(number)
    if not eager:
        assert isinstance(iterate, FastOrEager)
        assert isinstance(iterate.fast, CapturedIterations)
        assert not iterate.fell_back
    state = {k: v.cpu() for k, v in model.state_dict().items() if "num_batches" not in k}
    return state, work.meter.state()[0].cpu()


def assert_recorded_as_eager(index: FolderIndex, device: torch.device) -> None:
    (weights, sums), (eager, eager_sums) = (trained_on_files(index, device, eager) for eager in (False, True))
    for key, value in eager.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(sums, eager_sums, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("fast_on_a_cpu")
def test_small_images_in_files_are_recorded_too(
    plain_colours: FolderIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their rate depends on; large ones are not."""
    assert_recorded_as_eager(plain_colours, CPU)
    monkeypatch.setattr(classification, "SMALL", 7)
    with pytest.raises(AssertionError, match="CapturedIterations"):
        trained_on_files(plain_colours, CPU, eager=False)


@pytest.mark.gpu
def test_a_recorded_iteration_of_files_is_the_eager_one(plain_colours: FolderIndex) -> None:
    assert_recorded_as_eager(plain_colours, torch.device("cuda"))


def learned_by(model: nn.Module) -> Tensor:
    """Return by how much training has changed each weight, all in a row."""
    pairs = zip(model.parameters(), small_model().parameters(), strict=True)
    return torch.cat([(now.detach().cpu() - before.detach()).flatten() for now, before in pairs])


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("recipe", "precision", "differs"),
    [(SHORT, "bfloat16", 0.5), (NOT_RECORDED, "bfloat16", 0.5), (NOT_RECORDED, "tf32", 0.1)],
    ids=["recorded-bfloat16", "compiled-bfloat16", "compiled-tf32"],
)
def test_a_run_on_a_gpu_learns_what_the_eager_one_does(
    recipe: Recipe, precision: str, differs: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """In short factors, which the two round at other places: two gradients of noise would differ by 1.4."""
    device = torch.device("cuda")
    recipe = override(recipe, [f"precision={precision}", "schedule.learning_rate=0.01"])
    with arithmetic(device, precision, deterministic=False, one_size=True):
        fast, eager = trained(recipe, eager=False, device=device), trained(recipe, eager=True, device=device)
    assert "recording failed" not in capsys.readouterr().err
    mine, theirs = learned_by(fast[0]), learned_by(eager[0])
    assert (mine - theirs).norm() < differs * theirs.norm()
    assert fast[1][2] == eager[1][2] == 5 * BATCH
    torch.testing.assert_close(fast[1][0], eager[1][0], rtol=0.05, atol=0)


@pytest.mark.gpu
def test_where_recording_fails_on_a_gpu_a_run_goes_on_and_the_next_is_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = torch.device("cuda")
    usual = SGD.step

    def waits(self: SGD, rate: float | Tensor) -> None:
        if torch.cuda.is_current_stream_capturing():
            self.parameters[0].sum().item()
        usual(self, rate)

    with full_float32(device):
        eager = trained(SHORT, eager=True, device=device)
        monkeypatch.setattr(SGD, "step", waits)
        slow = trained(SHORT, eager=False, device=device)
        (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
        assert "recording failed" in said
        assert_same(slow[0], eager[0], slow[1], eager[1], rtol=1e-3, atol=1e-4)
        monkeypatch.undo()
        fast = trained(SHORT, eager=False, device=device)
    assert "recording failed" not in capsys.readouterr().err
    assert_same(fast[0], eager[0], fast[1], eager[1], rtol=1e-3, atol=1e-3)
