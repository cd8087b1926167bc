"""Layer responses and signals against forward passes written out by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residual import InputError, build_model
from residual.analysis.layers import layers_of, responses, signals


def network(name: str = "cifar_resnet8") -> nn.Module:
    torch.manual_seed(0)
    model = build_model(name, classes=4, in_channels=1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                # BN layers that differ, so that a mix-up shows.
                module.weight.uniform_(0.5, 2)
                module.bias.uniform_(-1, 1)
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2)
    return model.eval()


def forward_by_hand(model: nn.Module, x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return the outputs of all 3x3 convolutions, the responses, and the scores; nothing in place."""
    before, after = [], []

    def layer(conv: nn.Module, bn: nn.Module, x: Tensor) -> Tensor:
        before.append(conv(x))
        after.append(bn(before[-1]))
        return after[-1]

    x = F.relu(layer(model.conv1, model.bn1, x))
    for stage in (model.layer1, model.layer2, model.layer3):
        for block in stage:
            y = F.relu(layer(block.conv1, block.bn1, x))
            y = layer(block.conv2, block.bn2, y)
            x = F.relu(y if block.downsample is None else y + block.downsample(x))
    return before, after, model.linear(x.mean(dim=(2, 3)))


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_plain8"])
def test_responses_are_deviations_after_bn_before_relu_and_addition(name: str) -> None:
    model = network(name)
    x = torch.randn(12, 1, 8, 8)
    expected = [response.std(correction=0).item() for response in forward_by_hand(model, x)[1]]
    measured = responses(model, x.split(5))
    assert [r.std for r in measured] == pytest.approx(expected, rel=1e-5)
    assert [r.layer for r in measured][:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    # A 6n+2 network has 6n+1 such layers.
    assert len(measured) == 7


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_plain8"])
def test_signals_are_those_of_a_training_step(name: str) -> None:
    model = network(name)
    state = copy.deepcopy(model.state_dict())
    x, y = torch.randn(10, 1, 8, 8), torch.arange(10) % 4
    measured = signals(model, [(x, y)])

    reference = copy.deepcopy(model).train()
    before, after, scores = forward_by_hand(reference, x)
    # One image's own loss: the sum, not the mean, over the batch.
    gradients = torch.autograd.grad(F.cross_entropy(scores, y, reduction="sum"), after)
    assert [s.variance_before for s in measured] == pytest.approx(
        [b.var(correction=0).item() for b in before]
    )
    assert [s.variance for s in measured] == pytest.approx([a.var(correction=0).item() for a in after])
    norms = [(g.flatten(1).norm(dim=1) ** 2).mean().sqrt().item() for g in gradients]
    assert [s.gradient_norm for s in measured] == pytest.approx(norms, rel=1e-4)
    # The network is left as it was, and so is what it computes.
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert all(p.grad is None for p in model.parameters())
    assert not model.training


def test_batch_sizes_do_not_matter() -> None:
    model, x = network(), torch.randn(9, 1, 8, 8)
    whole, parts = responses(model, [x]), responses(model, x.split(2))
    assert [r.std for r in whole] == pytest.approx([r.std for r in parts], rel=1e-6)


def test_networks_with_other_convolutions() -> None:
    # A bottleneck's 3x3 layer is the middle one; projections and 1x1 layers are no 3x3 layers.
    with torch.device("meta"):
        x = torch.zeros(1, 3, 32, 32)
        resnet, vgg = (layers_of(build_model(name), x) for name in ("resnet50", "vgg16"))
    assert len(resnet) == 16
    # VGG has no BN here: the convolution's own output is the response.
    assert len(vgg) == 13
    assert all(layer.response is layer.convolution for layer in vgg)
    with pytest.raises(InputError, match="no 3x3 convolution"):
        layers_of(nn.Linear(2, 2), torch.zeros(1, 2))


class PreActivated(nn.Module):
    """A network as somebody writes it: the head first, BN last, before a layer and after its ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)
        self.second, self.first = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.third, self.fourth = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.first(x)))
        x = x + self.second(x)
        x = self.bn3(F.relu_(self.third(F.relu(self.bn2(x)))))
        return self.head(x.mean(dim=(2, 3)))


def test_bn_is_a_layers_where_it_takes_its_output_in_whatever_order_they_were_made() -> None:
    model = PreActivated().eval()
    found = layers_of(model, torch.zeros(1, 1, 8, 8))
    assert [layer.name for layer in found] == ["first", "second", "third"]
    assert [layer.response for layer in found] == [model.bn1, model.second, model.third]
    measured = responses(model, torch.randn(6, 1, 8, 8).split(3))
    assert all(response.std > 0 for response in measured)


@torch.no_grad()
def test_responses_of_a_highway_network_have_no_gates_and_say_how_open_those_are() -> None:
    torch.manual_seed(0)
    model = build_model("cifar_highway32", classes=4, in_channels=1).eval()
    x = torch.randn(6, 1, 8, 8)
    measured = {response.layer: response for response in responses(model, x.split(4))}
    # 27 gated layers, and the plain ones at the beginning of each stage.
    assert len(measured) == 30
    assert measured["conv1"].gate is None
    assert measured["layer2.1"].gate is None
    y = F.relu(model.conv1(x))
    for number, layer in enumerate(model.layer1):
        transformed, opened = layer.conv(y), torch.sigmoid(layer.gate(y))
        found = measured[f"layer1.{number}.conv"]
        assert found.std == pytest.approx(transformed.std(correction=0).item(), rel=1e-4)
        assert found.gate == pytest.approx(opened.mean().item(), rel=1e-4)
        y = opened * F.relu(transformed) + (1 - opened) * y
