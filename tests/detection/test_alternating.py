"""The four steps of alternating training."""

import torch
from detectors import small_detector, training_image

from residual.detection.alternating import AlternatingRCNN, step_of
from residual.detection.alternating import rate as alternating_rate
from residual.recipes.schema import Schedule
from residual.training.sgd import SGD


def test_what_learns_in_each_of_the_four_steps() -> None:
    model = AlternatingRCNN(small_detector().train())
    optimizer = SGD(model, 0.9, 5e-4, "paper")
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    changed = []
    for step in range(4):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.begin(step, True, optimizer)
        if step == 2:
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
        losses = model([training_image(step), training_image(9, objects=2)])
        assert [bool(loss) for loss in losses] == (
            [True, True, False, False] if step in (0, 2) else [False, False, True, True]
        )
        losses.sum().backward()
        optimizer.step(0.1)
        changed.append({name for name, p in model.named_parameters() if not torch.equal(p, before[name])})
    proposal = {"rpn_head"}
    assert {name.split(".")[0] for name in changed[0]} == {"proposer"}
    assert {name.split(".")[1] for name in changed[0]} == {"backbone"} | proposal
    assert not any("layer3" in name or "layer1" in name for name in changed[0])
    assert {name.split(".")[0] for name in changed[1]} == {"detector"}
    assert {name.split(".")[1] for name in changed[1]} == {"backbone", "cls_score", "bbox_pred"}
    assert {name.split(".")[1] for name in changed[2]} == proposal
    assert {name.split(".")[1] for name in changed[3]} == {"backbone", "cls_score", "bbox_pred"}
    assert all("layer3" in name for name in changed[3] if "backbone" in name)
    # The second network starts where the first one did.
    name = "backbone.network.layer2.0.conv1.weight"
    assert torch.equal(start[f"detector.{name}"], start[f"proposer.{name}"])


def test_each_of_the_four_steps_runs_through_the_schedule() -> None:
    schedule = Schedule(iterations=16, learning_rate=0.5, drops=(0.75,))
    assert [alternating_rate(schedule, i) for i in range(16)] == [0.5, 0.5, 0.5, 0.05] * 4
    assert [step_of(i, 10)[0] for i in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
