"""An iteration of detection: a mini-batch at once or in parts, and the sums of its log."""

from typing import Any

import pytest
import torch
from conftest import CPU
from detectors import small_detector, training_image

from residual.detection.inference import DetectionOptions, detect
from residual.detection.training import DetectionIterations, LossMeter
from residual.distributed import World
from residual.recipes import DetectionRecipe, find, override
from residual.training.sgd import SGD
from residual.training.small_maps import SmallMapConv2d


def test_an_iteration_learns_from_the_mean_over_its_images_in_whatever_parts() -> None:
    images = [training_image(n, objects=n % 3) for n in range(3)]
    recipe = override(find("voc-finetune", DetectionRecipe), ["batch.size=3", "batch.at_once=3"])
    whole = small_detector().train()
    losses = whole(images)
    (losses.sum() / 3).backward()
    SGD(whole, 0.9, 1e-4, "paper").step(0.02)
    for at_once in (3, 2, 1):
        model, meter = small_detector().train(), LossMeter(CPU, whole.losses)
        batches: Any = {7: images}.__getitem__
        how = override(recipe, [f"batch.at_once={at_once}"])
        optimizer = SGD(model, 0.9, 1e-4, "paper")
        DetectionIterations(model, batches, how, World(), meter, optimizer, lambda _: 0.02)(7)
        for (name, one), other in zip(model.named_parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=f"{name}: {{}}".format)
        line = meter.line(World())
        assert line["images"] == 3
        assert list(line["losses"].values()) == pytest.approx((losses / 3).tolist(), rel=1e-4)
        assert line["loss"] == pytest.approx(float(losses.detach().sum() / 3), rel=1e-4)


def test_regions_small_maps_are_convolved_as_such_in_training_alone() -> None:
    """ResNet-18's last stage on regions of 8 x 8 cells, and what is tested is what was trained."""
    images = [training_image(n) for n in range(2)]
    recipe = override(find("voc-finetune", DetectionRecipe), ["batch.size=2"])
    plain, model = small_detector("resnet18", roi_size=8).train(), small_detector("resnet18", roi_size=8)
    before = plain.backbone.network.layer4[1].conv2.weight.detach().clone()
    losses = plain(images)
    (losses.sum() / 2).backward()
    SGD(plain, 0.9, 1e-4, "paper").step(0.02)
    assert (plain.backbone.network.layer4[1].conv2.weight - before).abs().max() > 1e-3
    meter, batches = LossMeter(CPU, model.losses), {0: images}
    optimizer = SGD(model, 0.9, 1e-4, "paper")
    # Weights that were loaded are in evaluation's mode, and dropout (VGG's) would stay off.
    model.eval()
    iterations = DetectionIterations(
        model, batches.__getitem__, recipe, World(), meter, optimizer, lambda _: 0.02
    )
    model.train()
    iterations(0)
    assert iterations.model is not None
    assert all(part.training for part in iterations.model.modules())
    small = [name for name, part in iterations.model.named_modules() if isinstance(part, SmallMapConv2d)]
    assert sum(".layer4." in name for name in small) == 5
    assert not any(isinstance(part, SmallMapConv2d) for part in model.modules())
    for (name, one), other in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=f"{name}: {{}}".format)
    found = [detect([each.eval()], [images[0].image], DetectionOptions())[0] for each in (model, plain)]
    torch.testing.assert_close(found[0].boxes, found[1].boxes, rtol=1e-3, atol=1e-2)
