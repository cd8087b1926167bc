"""The four steps of alternating training."""

from pathlib import Path

import pytest
import torch
import yaml
from detectors import small_detector, training_image

from residual.detection.alternating import AlternatingRCNN
from residual.detection.steps import drops_of_steps, position
from residual.detection.steps import rate as alternating_rate
from residual.errors import InputError
from residual.recipes import DETECTION, DetectionRecipe, override, read
from residual.training.sgd import SGD


def test_what_learns_in_each_of_the_four_steps() -> None:
    model = AlternatingRCNN(small_detector().train())
    optimizer = SGD(model, 0.9, 5e-4, "paper")
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    changed = []
    for step in range(4):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.begin(step, True, optimizer)
        if step in (1, 2):
            # What is tested from now on proposes as step 1 has learned to; step 3 goes on from there.
            ours, theirs = (part.rpn_head.state_dict() for part in (model.detector, model.proposer))
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
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


def recipe_of(*settings: str) -> DetectionRecipe:
    return override(DETECTION["voc07+12-resnet101-4step"], list(settings))


def test_the_four_steps_are_as_long_as_the_authors() -> None:
    """Their files for 07+12: 60k + 20k iterations of an image, then 30k + 30k of two for the head."""
    recipe = recipe_of()
    assert (recipe.schedule.iterations, recipe.batch.size) == (280_000, 1)
    starts = {0: 0, 1: 80_000, 2: 140_000, 3: 220_000}
    for step, first in starts.items():
        assert [position(recipe, i).step for i in (first - 1, first) if i >= 0][-1] == step
        assert step == 0 or position(recipe, first - 1).step == step - 1
    several = range(500, 280_000, 500)
    changes = [i for i in several if alternating_rate(recipe, i) != alternating_rate(recipe, i - 1)]
    assert changes == [60_000, 80_000, 110_000, 140_000, 200_000, 220_000, 250_000]
    assert drops_of_steps(recipe, 280_000) == [60_000, 110_000, 200_000, 250_000]
    assert drops_of_steps(recipe, 28) == [6, 11, 20, 25]
    assert alternating_rate(recipe, 279_999) == pytest.approx(1e-4)
    assert position(recipe, 280_000).batches.start == 80_000 + 2 * 60_000 + 80_000 + 2 * 60_000


def test_each_of_the_four_steps_runs_through_a_schedule_of_its_own() -> None:
    recipe = recipe_of(
        *("schedule.iterations=28", "schedule.learning_rate=0.5", "steps.head_batches=3"),
        *("steps.lengths=[8,4,12,4]", "steps.head_drops=[0.25,0.75]"),
    )
    rates = [alternating_rate(recipe, i) for i in range(28)]
    head = pytest.approx([0.5, 0.05, 0.05, 0.005])
    assert rates[:8] == [0.5] * 6 + [0.05] * 2
    assert rates[8:12] == head
    assert rates[12:24] == [0.5] * 9 + [0.05] * 3
    assert rates[24:] == head
    # Every mini-batch has its turn, three of them an iteration where the head learns.
    numbers = [list(position(recipe, i).batches) for i in range(28)]
    assert [len(part) for part in numbers] == [1] * 8 + [3] * 4 + [1] * 12 + [3] * 4
    assert [n for part in numbers for n in part] == list(range(8 + 12 + 12 + 12))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["training=joint"], "steps are for alternating training; set steps=null"),
        (["schedule.epochs=3"], "set schedule.iterations"),
        (["steps.lengths=[1,2,3]"], "steps.lengths"),
        (["steps.lengths=[1,0,1,1]"], "four positive numbers"),
        (["steps.head_drops=[1.5]"], "head_drops are increasing fractions"),
    ],
)
def test_steps_that_cannot_be(settings: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        recipe_of(*settings)


def test_alternating_training_has_the_authors_steps_where_none_are_said() -> None:
    joint = DETECTION["voc07+12-resnet101"]
    assert joint.steps is None
    assert override(joint, ["training=alternating"]).steps == recipe_of().steps


def test_a_run_of_an_earlier_version_keeps_its_four_steps(tmp_path: Path) -> None:
    """They were of one length, a mini-batch an iteration, with one list of drops."""
    before = recipe_of("schedule.iterations=110000", "schedule.drops=[0.6,0.9]").model_dump(mode="json")
    del before["steps"]
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(before))
    recipe = read(file, DetectionRecipe, of_run=True)
    assert [position(recipe, i).step for i in (0, 27_499, 27_500, 55_000, 82_499, 82_500)] == [
        0,
        0,
        1,
        2,
        2,
        3,
    ]
    assert position(recipe, 110_000).batches.start == 110_000
    assert drops_of_steps(recipe, 110_000)[:4] == [16_500, 24_750, 44_000, 52_250]
    assert read(file, DetectionRecipe).steps == recipe_of().steps, "of a recipe of one's own"
