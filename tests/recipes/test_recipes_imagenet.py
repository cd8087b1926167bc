"""The recipes of Section 3.4 have the paper's numbers."""

import pytest

from residual.recipes import RECIPES
from residual.recipes.imagenet import NETWORKS

#: Figure 4 and Table 2 are of option A, 50 layers and more of option B.
SHORTCUTS = {"resnet18": "A", "resnet34-a": "A", "resnet34-b": "B", "resnet34-c": "C"}
SHORTCUTS |= {f"resnet{depth}": "B" for depth in (50, 101, 152)}


@pytest.mark.parametrize("name", NETWORKS)
def test_imagenet_recipes_are_section_3_4(name: str) -> None:
    recipe = RECIPES[f"imagenet-{name}"]
    assert (recipe.model.name, recipe.model.shortcut) == (name.partition("-")[0], SHORTCUTS.get(name))
    assert recipe.model.variant in ("v1", None)
    assert (recipe.batch.size, recipe.batch.bn_group) == (256, 32)
    optimizer, schedule, data = recipe.optimizer, recipe.schedule, recipe.data
    assert (optimizer.momentum, optimizer.weight_decay, optimizer.form) == (0.9, 1e-4, "paper")
    assert (schedule.iterations, schedule.epochs, schedule.warmup) == (600_000, None, None)
    # The rate falls where the error plateaus, and nowhere else; VGG has no BN.
    assert (schedule.learning_rate, schedule.drops) == (0.01 if name == "vgg16" else 0.1, ())
    assert (data.mean, data.std, data.pad, data.flip) == ("per-pixel", False, 0, True)
    assert data.folder is not None
    assert (data.folder.size, data.folder.crop, data.folder.shorter_side) == (224, "scale", (256, 480))
    assert data.folder.colour_noise == 0.1
