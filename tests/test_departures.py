"""What docs/departures.md says of the recipes is so."""

from pathlib import Path

import pytest
from conftest import ROOT

from residual.recipes import DETECTION, RECIPES, find
from residual.recipes.imagenet import NETWORKS
from residual.reproduce.layer_studies import IMAGES

PAGE = (Path(ROOT) / "docs" / "departures.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("network", NETWORKS)
def test_the_papers_networks_have_the_authors_max_pooling_and_a_plateau(network: str) -> None:
    recipe = find(f"imagenet-{network}")
    assert recipe.model.pool == "caffe"
    plateau = recipe.schedule.plateau
    assert plateau is not None
    assert (plateau.patience, plateau.least, plateau.drops) == (5, 0.1, 3)
    assert recipe.evaluate_every is None


def test_what_is_usual_today_has_torchvisions() -> None:
    assert find("finetune").model.pool is None
    assert find("digits-resnet20").model.pool is None


def test_arithmetic_on_a_gpu_is_tf32() -> None:
    assert {recipe.precision for recipe in RECIPES.values()} == {"tf32"}


@pytest.mark.parametrize("kind", ["plain", "resnet"])
@pytest.mark.parametrize("depth", [110, 1202])
def test_deep_networks_warm_up(kind: str, depth: int) -> None:
    warmup = find(f"cifar10-{kind}{depth}").schedule.warmup
    assert warmup is not None
    assert (warmup.iterations, warmup.learning_rate) == (400, 0.01)


@pytest.mark.parametrize("depth", [19, 32])
def test_highway_networks_differ_from_section_4_2_in_the_rate_alone(depth: int) -> None:
    rival, ours = find(f"cifar10-highway{depth}"), find("cifar10-resnet20")
    assert rival.schedule.learning_rate == 0.025
    same = {"name", "description", "model", "schedule"}
    assert rival.model_dump(exclude=same) == ours.model_dump(exclude=same)
    assert rival.schedule.model_copy(update={"learning_rate": 0.1}) == ours.schedule


@pytest.mark.parametrize("name", [name for name in DETECTION if name != "voc-finetune"])
def test_detectors_train_no_shorter_than_the_authors(name: str) -> None:
    """Images of a whole run: 320k iterations of 16 on COCO, 110k of 2 on VOC (280k in four steps)."""
    recipe = DETECTION[name]
    iterations, images = recipe.schedule.iterations, recipe.batch.size
    if name.startswith(("coco", "imagenet-det")):
        assert (iterations, images) == (320_000, 16)
        assert recipe.detector.anchor_sizes == (64, 128, 256, 512)
    else:
        assert (iterations, images) == ((280_000, 1) if name.endswith("4step") else (110_000, 2))
        assert recipe.detector.anchor_sizes == ((64,) if name.endswith("-coco") else ()) + (128, 256, 512)
        # Of two images together the authors' steps take 128 regions.
        assert recipe.detector.regions == (64 if name.endswith("4step") else 128)
    assert (recipe.schedule.learning_rate, recipe.schedule.drops) == (0.001, (0.75,))
    assert recipe.schedule.warmup is None
    optimizer = recipe.optimizer
    assert (optimizer.momentum, optimizer.weight_decay, optimizer.form) == (0.9, 5e-4, "paper")
    # What is better for boxes of one's own is not theirs.
    detector, data = recipe.detector, recipe.data
    assert (detector.pooling, detector.min_size, detector.ignore_cross_boundary_anchors) == ("pool", 16, True)
    assert (detector.train_proposals, detector.proposals, detector.freeze) == (2000, 300, 2)
    assert (data.shorter_side, data.longer_side, data.scale_range) == (600, 1000, (1, 1))


def test_the_page_says_so() -> None:
    assert f"the first {IMAGES:,} training images" in PAGE
    numbers = ("6 % of ResNet-56", "255 times smaller", "5 evaluations", "0.1 to 0.5", "at one scale")
    boxes = ("twice that of weights", "by 0.1, 0.1, 0.2 and 0.2", "16 pixels of the network's input")
    for told in ("TF32", "plain-110", "ten-crop", *numbers, *boxes):
        assert told in PAGE, told
