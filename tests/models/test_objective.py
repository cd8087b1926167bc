"""What is trained beside a network: DSN's companions, a teacher's hints; and that it resumes exactly."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import CPU, SMALL, Call, Refused, assert_same_run, set_options, shrink_rivals, tensors_of
from safetensors.torch import load_file

from residual import InputError, build_model
from residual.distributed import World
from residual.models import fitnet
from residual.models.fitnet import FitNet, Hints
from residual.models.maxout import MaxoutNetwork
from residual.models.nin import DeeplySupervisedNet
from residual.models.objective import DeepSupervision, Objective
from residual.training.classification import ErrorMeter
from residual.training.sgd import SGD
from residual.training.step import Step

#: Six iterations on digits of 8 x 8 pixels.
SHORT = [
    *("data.dataset=digits", "data.pad=0", "data.flip=false", "batch.size=8", "batch.bn_group=4"),
    *("schedule.iterations=6", "schedule.drops=[]", "checkpoint_every=2", "evaluate_every=6"),
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_rivals(monkeypatch)


def dsn() -> DeepSupervision:
    torch.manual_seed(0)
    network = build_model("cifar_dsn", classes=5, in_channels=1)
    assert isinstance(network, DeeplySupervisedNet)
    objective = network.objective()
    assert isinstance(objective, DeepSupervision)
    return objective


def taught() -> Hints:
    torch.manual_seed(0)
    network, teacher = (
        build_model(name, classes=5, in_channels=1) for name in ("cifar_fitnet19", "cifar_maxout")
    )
    objective = network.taught_by(teacher)
    assert isinstance(objective, Hints)
    return objective


def batch(images: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(images, 1, 8, 8), torch.randint(5, (images,))


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.1), (0.25, 0.075), (1.0, 0.0)])
def test_dsns_companion_losses_fall(progress: float, weight: float) -> None:
    objective, (x, y) = dsn().eval(), batch()
    outputs = objective(x)
    features = objective.network.features(x)
    expected = F.cross_entropy(objective.network(x), y)
    for companion, name in zip(objective.companions, ("mlpconv1", "mlpconv2"), strict=True):
        linear = companion.get_submodule("linear")
        expected = expected + weight * F.cross_entropy(linear(features[name].mean(dim=(2, 3))), y)
    torch.testing.assert_close(objective.loss(outputs, y, progress), expected)
    torch.testing.assert_close(objective.loss(outputs, y, torch.tensor(progress)), expected)
    torch.testing.assert_close(outputs[0], objective.network(x))


def test_hints_are_a_regression_first_and_the_teachers_scores_then() -> None:
    objective, (x, y) = taught().eval(), batch()
    network, teacher = objective.network, objective.teacher
    outputs = objective(x)
    scores, guided = network.scores_and_guided(x)
    hint, known = teacher.features(x)["layer2"], teacher(x)
    assert objective.regressor(guided).shape == hint.shape
    distance = ((objective.regressor(guided) - hint) ** 2).mean() / 2
    torch.testing.assert_close(objective.loss(outputs, y, 0.0), distance)
    torch.testing.assert_close(objective.loss(outputs, y, 0.2499), distance)
    soft = -((known / 3).softmax(1) * (scores / 3).log_softmax(1)).sum(1).mean()
    for progress, weight in ((0.25, 4.0), (0.625, 2.5), (1.0, 1.0)):
        expected = F.cross_entropy(scores, y) + weight * soft
        torch.testing.assert_close(objective.loss(outputs, y, progress), expected)
        torch.testing.assert_close(objective.loss(outputs, y, torch.tensor(progress)), expected)


def test_the_guided_layers_alone_learn_from_hints() -> None:
    objective, (x, y) = taught().train(), batch()
    objective.loss(objective(x), y, 0.0).backward()
    moved = {name for name, p in objective.named_parameters() if p.grad is not None and p.grad.any()}
    parts = {".".join(name.split(".")[:2]) for name in moved}
    assert {part.split(".")[0] for part in parts} == {"network", "regressor"}
    assert {part for part in parts if part.startswith("network")} == {"network.layer1", "network.layer2"}
    # The rest has a gradient too, so that ranks have something to exchange.
    assert all(p.grad is not None for p in objective.network.parameters())


def test_a_teacher_stays_as_it_is_and_drops_nothing() -> None:
    objective, (x, y) = taught().train(), batch()
    assert objective.network.training
    assert not any(module.training for module in objective.teacher.modules())
    before = {name: value.clone() for name, value in objective.teacher.state_dict().items()}
    step(objective, x, y, iteration=3)
    assert all(torch.equal(value, before[name]) for name, value in objective.teacher.state_dict().items())


@pytest.mark.parametrize("side", [8, 9, 11, 14, 17, 31, 32])
def test_a_hint_is_a_position_smaller_than_the_guided_map(side: int) -> None:
    _, guess, hint, _ = taught()(torch.randn(2, 1, side, side + 3))
    assert guess.shape == hint.shape


def step(
    objective: Objective, x: torch.Tensor, y: torch.Tensor, iteration: int, precision: str = "tf32"
) -> None:
    torch.manual_seed(2)
    optimizer = SGD(objective, 0.9, 0, "paper")
    Step(objective, optimizer, 4, World(), ErrorMeter(CPU), precision, iterations=4)(x, y, 0.1, iteration)


def test_a_step_knows_how_much_of_the_run_is_over() -> None:
    """Two groups of four images: gradients of both, at the weight of the step's iteration."""
    x, y = batch()
    after = []
    for iteration in (0, 3):
        objective = dsn().train()
        before = objective.companions[0].get_parameter("linear.weight").detach().clone()
        step(objective, x, y, iteration)
        after.append(objective.companions[0].get_parameter("linear.weight").detach() - before)
    # Companions weigh 0.1 at the beginning and 0.025 after three quarters; dropout is the same.
    torch.testing.assert_close(after[0], 4 * after[1])
    assert after[0].abs().max() > 1e-4


@pytest.mark.parametrize("make", [dsn, taught])
def test_objectives_train_in_bfloat16(make: Any) -> None:
    objective, (x, y) = make().train(), batch()
    before = [p.clone() for p in objective.network.parameters()]
    step(objective, x, y, 2, "bfloat16")
    changed = [not torch.equal(p, old) for p, old in zip(objective.network.parameters(), before, strict=True)]
    assert all(changed)
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in objective.network.parameters())


@pytest.mark.parametrize("recipe", ["nin", "dsn", "maxout", "fitnet19"])
def test_resumed_exactly(recipe: str, tmp_path: Path, call: Call) -> None:
    out = train(f"cifar10-{recipe}", tmp_path / "run", call)
    assert_same_run(out, resumed(out, tmp_path / "resumed", call))
    # What was trained beside the network is in the checkpoint, and not in the weights.
    beside = {name for name in checkpoint_of(out) if name.startswith("model/companions")}
    assert bool(beside) == (recipe == "dsn")
    assert not any(name.startswith(("network", "companions")) for name in tensors_of(out))


@pytest.mark.long
@pytest.mark.parametrize("recipe", ["googlenet", "bn_inception", "prelu_net"])
def test_networks_for_large_images_resume_exactly(
    recipe: str, images: Path, tmp_path: Path, call: Call
) -> None:
    settings = [*SMALL, "schedule.iterations=6", "checkpoint_every=2", "evaluate_every=6"]
    arguments = (
        f"imagenet-{recipe}",
        *set_options(settings),
        "--data-dir",
        images,
        "--out",
        tmp_path / "run",
    )
    assert call("train", *arguments) == 0
    assert_same_run(tmp_path / "run", resumed(tmp_path / "run", tmp_path / "resumed", call))
    assert ("model/companions.0.fc.weight" in checkpoint_of(tmp_path / "run")) == (recipe == "googlenet")


def checkpoint_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted(run.glob("checkpoint-*"))[-1])


@pytest.mark.long
# Iterations 4 and 5 of 6 are both of the second stage, or one of each.
@pytest.mark.parametrize("first_stage", [0.25, 0.75])
def test_both_stages_of_a_fitnet_resume_exactly(
    first_stage: float, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitnet, "FIRST_STAGE", first_stage)
    teacher = train("cifar10-maxout", tmp_path / "teacher", call)
    out = train("cifar10-fitnet19-hints", tmp_path / "run", call, f"model.teacher={teacher}")
    # A checkpoint has all of the teacher, whose own folder may be gone.
    shutil.rmtree(teacher)
    assert_same_run(out, resumed(out, tmp_path / "resumed", call))
    plain = train("cifar10-fitnet19", tmp_path / "plain", call)
    assert tensors_of(plain).keys() == tensors_of(out).keys()
    assert any(not torch.equal(tensors_of(plain)[name], value) for name, value in tensors_of(out).items())


def train(recipe: str, out: Path, call: Call, *settings: str) -> Path:
    assert call("train", recipe, *set_options([*SHORT, *settings]), "--out", out) == 0
    return out


def resumed(run: Path, to: Path, call: Call) -> Path:
    """Go on with a copy of a complete run at its last checkpoint but one."""
    shutil.copytree(run, to)
    shutil.rmtree(to / "weights")
    (to / "results.json").unlink()
    first, last = sorted(to.glob("checkpoint-*"))
    assert "4" in first.name
    last.unlink()
    assert call("train", "--resume", "--out", to) == 0
    return to


def test_wrong_teachers(tmp_path: Path, call: Call, refused: Refused) -> None:
    def said(*settings: str, recipe: str = "cifar10-fitnet19-hints") -> str:
        return refused("train", recipe, *set_options([*SHORT, *settings]), "--out", tmp_path / "none")

    assert "there is no folder runs/cifar10-maxout" in said()
    teacher = train("cifar10-maxout", tmp_path / "maxout", call)
    named = f"model.teacher={teacher}"
    assert "only cifar_fitnet19 learns from a teacher" in said(named, recipe="cifar10-nin")
    assert "trained with data.mean per-pixel, and the recipe has per-channel" in said(
        named, "data.mean=per-channel"
    )
    other = train("cifar10-nin", tmp_path / "nin", call)
    assert "hints for cifar_fitnet19 are a cifar_maxout's" in said(f"model.teacher={other}")
    config = json.loads((teacher / "weights" / "config.json").read_text())
    config["classes"][0] = "nought"
    (teacher / "weights" / "config.json").write_text(json.dumps(config))
    assert "tells other classes apart" in said(named)
    assert not (tmp_path / "none").exists()


def test_only_its_own_kind_of_network_teaches() -> None:
    for channels, classes in ((3, 5), (1, 4)):
        network = FitNet(classes=5, in_channels=1)
        with pytest.raises(InputError, match=r"model\.teacher: it tells"):
            network.taught_by(MaxoutNetwork(classes=classes, in_channels=channels))
