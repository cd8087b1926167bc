"""The step and its parts against independent references."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residual import InputError, build_model
from residual.distributed import World
from residual.evaluation.metrics import evaluate
from residual.training.batchnorm import average_statistics, batch_norms
from residual.training.checkpoint import (
    KEPT,
    Progress,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    write_atomically,
)
from residual.training.sgd import SGD
from residual.training.step import Meter, Step

CPU = torch.device("cpu")


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("cifar_resnet8", classes=4, in_channels=1).train()


def batch(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, 1, 8, 8, generator=generator),
        torch.randint(4, (count,), generator=generator),
    )


# --- momentum -------------------------------------------------------------------------------------------


def test_pytorch_form_is_torch_optim_sgd() -> None:
    mine, theirs = small_model(), small_model()
    ours = SGD(mine, 0.9, 1e-2, "pytorch")
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for i, rate in enumerate([0.1, 0.1, 0.01, 0.01]):
        x, y = batch(8, i)
        reference.param_groups[0]["lr"] = rate
        for model in (mine, theirs):
            F.cross_entropy(model(x), y).backward()
        ours.step(rate)
        reference.step()
        reference.zero_grad()
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_paper_form_on_one_weight_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    sgd = SGD(model, momentum=0.5, weight_decay=0.1, form="paper")
    # g = gradient + 0.1*w, v = 0.5*v + lr*g, w = w - v
    weight, velocity = 2.0, 0.0
    for gradient, rate in [(1.0, 0.1), (3.0, 0.1), (-2.0, 0.01)]:
        model.weight.grad = torch.tensor([[gradient]])
        sgd.step(rate)
        velocity = 0.5 * velocity + rate * (gradient + 0.1 * weight)
        weight -= velocity
        assert model.weight.item() == pytest.approx(weight, rel=1e-6)
    assert model.weight.grad is None


def test_the_two_forms_differ_only_after_a_change_of_the_rate() -> None:
    models = {form: nn.Linear(1, 1, bias=False) for form in ("paper", "pytorch")}
    optimizers = {form: SGD(model, 0.9, 0, form) for form, model in models.items()}  # type: ignore[arg-type]
    for model in models.values():
        nn.init.ones_(model.weight)

    def step(rate: float) -> bool:
        for form, model in models.items():
            model.weight.grad = torch.ones(1, 1)
            optimizers[form].step(rate)
        return torch.allclose(models["paper"].weight, models["pytorch"].weight)

    assert step(0.1)
    assert step(0.1)
    assert not step(0.01)
    # The old rate is still in the paper's velocity: its weight moves further.
    assert models["paper"].weight < models["pytorch"].weight


# --- BN groups -------------------------------------------------------------------------------------------


def test_a_step_normalises_group_by_group_and_averages_the_gradients() -> None:
    """Against the paper's machine: two GPUs with half of the batch each, gradients averaged."""
    x, y = batch(16)
    model = small_model()
    gpus = [copy.deepcopy(model), copy.deepcopy(model)]
    for gpu, xs, ys in zip(gpus, x.split(8), y.split(8), strict=True):
        F.cross_entropy(gpu(xs), ys).backward()
    expected = {}
    for (name, p), q in zip(gpus[0].named_parameters(), gpus[1].parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        expected[name] = p.detach() - 0.1 * (p.grad + q.grad) / 2

    meter = Meter(CPU)
    Step(model, SGD(model, 0.9, 0, "paper"), 8, World(), meter)(x, y, 0.1, 0)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name])
    # Moving averages: what the average over the two GPUs would be.
    for mine, a, b in zip(*(batch_norms(m) for m in (model, *gpus)), strict=True):
        torch.testing.assert_close(mine.running_mean, (a.running_mean + b.running_mean) / 2)
        torch.testing.assert_close(mine.running_var, (a.running_var + b.running_var) / 2)

    whole = small_model()
    Step(whole, SGD(whole, 0.9, 0, "paper"), 16, World(), Meter(CPU))(x, y, 0.1, 0)
    name = "layer1.0.conv1.weight"
    assert not torch.allclose(whole.get_parameter(name), expected[name]), "the group does not matter?"


def test_exact_averages_are_plain_means_over_all_groups() -> None:
    model = small_model()
    first = model.bn1
    outputs: list[Tensor] = []
    model.conv1.register_forward_hook(lambda module, inputs, output: outputs.append(output.detach().clone()))
    average_statistics(model, lambda i: batch(16, i), range(3, 8), 8, World())
    assert len(outputs) == 10
    means = torch.stack([o.mean(dim=(0, 2, 3)) for o in outputs]).mean(0)
    variances = torch.stack([o.var(dim=(0, 2, 3), unbiased=True) for o in outputs]).mean(0)
    torch.testing.assert_close(first.running_mean, means)
    torch.testing.assert_close(first.running_var, variances)


def test_averaging_changes_no_weight() -> None:
    model = small_model()
    before = [p.clone() for p in model.parameters()]
    average_statistics(model, lambda i: batch(16, i), range(2), 8, World())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert {layer.num_batches_tracked.item() for layer in batch_norms(model)} == {4}


# --- the meter -------------------------------------------------------------------------------------------


def test_the_meter_counts_and_remembers_the_first_broken_loss() -> None:
    meter = Meter(CPU)
    scores = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 5.0]])
    meter.add(torch.tensor(0.5), scores, torch.tensor([0, 1, 1, 1]), 7)
    meter.add(torch.tensor(1.5), scores[:2], torch.tensor([1, 0]), 8)
    loss, error, count = meter.read(World())
    assert (loss, error, count) == (pytest.approx((0.5 * 4 + 1.5 * 2) / 6), 50.0, 6)
    assert meter.broken_at == -1
    for iteration in (9, 10):
        meter.add(torch.tensor(float("nan")), scores, torch.tensor([0, 0, 0, 0]), iteration)
    assert meter.broken_at == 9


# --- evaluation ------------------------------------------------------------------------------------------


def test_evaluation_counts_every_picture_once() -> None:
    torch.manual_seed(0)
    model = build_model("cifar_resnet8", classes=10, in_channels=1)
    images = torch.randint(0, 256, (613, 1, 8, 8), dtype=torch.uint8)
    targets = torch.randint(10, (613,))
    metrics = evaluate(model, lambda x: x.float() / 255, images, targets)
    model.eval()
    with torch.no_grad():
        scores = model(images.float() / 255)
    top5 = scores.topk(5).indices
    assert metrics.images == 613
    assert metrics.top1_error == pytest.approx(100 * (scores.argmax(1) != targets).float().mean().item())
    assert metrics.top5_error == pytest.approx(
        100 * (top5 != targets[:, None]).all(1).float().mean().item(), rel=1e-5
    )
    assert metrics.loss == pytest.approx(F.cross_entropy(scores, targets).item(), rel=1e-5)
    shares = [
        evaluate(model, lambda x: x.float() / 255, images[r::3], targets[r::3]).images for r in range(3)
    ]
    assert sum(shares) == 613


def test_evaluation_leaves_the_network_as_it_was() -> None:
    model = small_model()
    state = copy.deepcopy(model.state_dict())
    evaluate(model, lambda x: x.float(), torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.zeros(3).long())
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True))


# --- checkpoints -----------------------------------------------------------------------------------------


def tensors() -> dict[str, Tensor]:
    return {"a": torch.randn(3, 4), "b": torch.tensor(7), "c": torch.randn(2, 3, 4, 4).transpose(0, 1)}


def test_checkpoints_come_back_bit_for_bit_and_only_the_newest_stay(tmp_path: Path) -> None:
    stored = tensors()
    for iteration in (5, 50, 500):
        path = save_checkpoint(tmp_path, stored, Progress(iteration, 1.5, 20.0))
    assert list_checkpoints(tmp_path)[-1] == path
    assert len(list_checkpoints(tmp_path)) == KEPT
    read, progress = load_checkpoint(path)
    assert progress == Progress(500, 1.5, 20.0)
    assert read.keys() == stored.keys()
    assert all(torch.equal(read[name], stored[name]) for name in stored)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, tensors(), Progress(5))
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[:-8]
    elif damage == "flipped":
        content[-3] ^= 1
    elif damage == "empty":
        content = bytearray()
    else:
        content = bytearray(json.dumps({"hello": 1}).encode())
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint-0000005\.safetensors: the checkpoint is damaged"):
        load_checkpoint(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
