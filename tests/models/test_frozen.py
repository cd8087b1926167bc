"""Stages that stay: neither weights nor BN statistics change, and tensors keep their names."""

import pytest
import torch
from conftest import noise, randomise, sentence_of, small_batch, step_of
from torch import nn

from residual import build_model
from residual.distributed import World
from residual.models.frozen import freeze_stages
from residual.training.batchnorm import average_statistics, batch_norms


@pytest.mark.parametrize(
    ("stages", "kept"), [(0, ()), (1, ("conv1", "bn1")), (3, ("conv1", "bn1", "layer1", "layer2"))]
)
def test_first_stages_stay_and_the_others_learn(stages: int, kept: tuple[str, ...]) -> None:
    model = randomise(build_model("cifar_resnet8", classes=4, in_channels=1, shortcut="B"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    outputs = model(noise(1, 8))
    freeze_stages(model, stages)
    assert model.state_dict().keys() == before.keys()
    assert torch.equal(model(noise(1, 8)), outputs)
    model.train()
    step = step_of(model, 4)
    for iteration in range(2):
        step(*small_batch(8, seed=iteration), 0.1, iteration)
    average_statistics(model, lambda i: small_batch(8, seed=i), range(2), 4, World())
    changed = {
        name.split(".")[0]
        for name, tensor in model.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed == {"conv1", "bn1", "layer1", "layer2", "layer3", "linear"} - set(kept)
    assert len(batch_norms(model)) == len([m for m in model.modules() if type(m) is nn.BatchNorm2d])


@pytest.mark.parametrize(
    ("name", "stages"), [("resnet18", 5), ("vgg16", 5), ("cifar_resnet8", 4), ("cifar_highway19", 5)]
)
def test_stages_of_each_family(name: str, stages: int) -> None:
    with torch.device("meta"):
        model = build_model(name)
    assert len(model.stage_layers()) == stages
    freeze_stages(model, stages)
    learning = {key.split(".")[0] for key, p in model.named_parameters() if p.requires_grad}
    assert learning == {"resnet18": {"fc"}, "vgg16": {"classifier"}}.get(name, {"linear"})
    said = sentence_of(lambda: freeze_stages(model, stages + 1))
    assert said == f"model.freeze={stages + 1}: the network has {stages} stages, and no more can stay"
