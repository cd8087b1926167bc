"""GoogLeNet and BN-Inception: public weights give public scores, auxiliary classifiers, the normalisation."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from conftest import randomise
from torch import Tensor, nn

from residual import build_model
from residual.models.foreign import IMAGENET_MEAN, IMAGENET_STD
from residual.models.inception import GoogLeNet, HalvingMaxPool2d, LocalResponseNorm
from residual.models.objective import DeepSupervision
from residual.models.published import catalogue
from residual.models.weights import import_weights

CLASSES = 7

#: The modules of the public BN-Inception, made from its Caffe file: channels in; of the 1x1 layer; of the
#: 3x3's two and the double 3x3's three; after the pooling, its kind, the stride.
MODULES = (
    ("3a", 192, 64, (64, 64), (64, 96, 96), 32, "mean", 1),
    ("3b", 256, 64, (64, 96), (64, 96, 96), 64, "mean", 1),
    ("3c", 320, None, (128, 160), (64, 96, 96), None, "max", 2),
    ("4a", 576, 224, (64, 96), (96, 128, 128), 128, "mean", 1),
    ("4b", 576, 192, (96, 128), (96, 128, 128), 128, "mean", 1),
    ("4c", 576, 160, (128, 160), (128, 160, 160), 128, "mean", 1),
    ("4d", 608, 96, (128, 192), (160, 192, 192), 128, "mean", 1),
    ("4e", 608, None, (128, 192), (192, 256, 256), None, "max", 2),
    ("5a", 1056, 352, (192, 320), (160, 224, 224), 128, "mean", 1),
    ("5b", 1024, 352, (192, 320), (192, 224, 224), 128, "max", 1),
)


class Public(nn.Module):
    """The public network by its layers' names, biases before BN included."""

    def __init__(self) -> None:
        super().__init__()
        self._add("conv1_7x7_s2", 3, 64, 7)
        self._add("conv2_3x3_reduce", 64, 64, 1)
        self._add("conv2_3x3", 64, 192, 3)
        for name, channels, one, three, double, pooled, _, _ in MODULES:
            at = f"inception_{name}_"
            if one and pooled:
                self._add(f"{at}1x1", channels, one, 1)
                self._add(f"{at}pool_proj", channels, pooled, 1)
            self._add(f"{at}3x3_reduce", channels, three[0], 1)
            self._add(f"{at}3x3", three[0], three[1], 3)
            self._add(f"{at}double_3x3_reduce", channels, double[0], 1)
            self._add(f"{at}double_3x3_1", double[0], double[1], 3)
            self._add(f"{at}double_3x3_2", double[1], double[2], 3)
        self.last_linear = nn.Linear(1024, CLASSES)

    def _add(self, name: str, before: int, after: int, kernel: int) -> None:
        self.add_module(name, nn.Conv2d(before, after, kernel, padding=kernel // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(after))

    def _layer(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        conv, norm = self.get_submodule(name), self.get_submodule(f"{name}_bn")
        assert isinstance(conv, nn.Conv2d)
        return F.relu(norm(F.conv2d(x, conv.weight, conv.bias, stride, conv.padding)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self._layer("conv1_7x7_s2", x, 2), 3, 2, ceil_mode=True)
        x = self._layer("conv2_3x3", self._layer("conv2_3x3_reduce", x))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for name, _, one, _, _, _, kind, stride in MODULES:
            at = f"inception_{name}_"
            three = self._layer(f"{at}3x3", self._layer(f"{at}3x3_reduce", x), stride)
            double = self._layer(f"{at}double_3x3_1", self._layer(f"{at}double_3x3_reduce", x))
            maps = [three, self._layer(f"{at}double_3x3_2", double, stride)]
            if one is None:
                maps.append(F.max_pool2d(x, 3, 2, ceil_mode=True))
            else:
                pooled = F.avg_pool2d(x, 3, 1, 1) if kind == "mean" else F.max_pool2d(x, 3, 1, 1)
                maps = [self._layer(f"{at}1x1", x), *maps, self._layer(f"{at}pool_proj", pooled)]
            x = torch.cat(maps, 1)
        return self.last_linear(x.mean(dim=(2, 3)))


@pytest.mark.parametrize("name", ["googlenet_bn", "bn_inception"])
def test_public_weights_give_public_scores(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = (
        Public()
        if name == "bn_inception"
        # As with public weights: it takes off what its preprocessing has done.
        else torchvision.models.googlenet(num_classes=CLASSES, init_weights=False, transform_input=True)
    )
    randomise(theirs).eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = import_weights(tmp_path / "theirs.pth", name, tmp_path / "weights")
    assert ours.model.classes == CLASSES
    pixels = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    if name == "bn_inception":
        # Its settings: BGR, a range of 0 to 255, means of 104, 117, 128.
        x = pixels.flip(1) - torch.tensor([104.0, 117, 128])[:, None, None]
    else:
        x = (pixels / 255 - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[
            :, None, None
        ]
    with torch.no_grad():
        expected, given = theirs(x), ours.model(ours.preprocessing(pixels))
    assert expected.std() > 1e-3
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_torchvisions_weights_see_pixels_from_minus_one_to_one() -> None:
    """What torchvision's network does to its input first, and its preprocessing before, is ours at once."""
    published = catalogue()["torchvision:googlenet"]
    assert published.network == "googlenet_bn"
    pixels = torch.rand(3, 4, 5)
    mean, std = (torch.tensor(published.about[key])[:, None, None] for key in ("mean", "std"))
    seen = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.transforms()
    theirs = (pixels - torch.tensor(seen.mean)[:, None, None]) / torch.tensor(seen.std)[:, None, None]
    with torch.device("meta"):
        network = torchvision.models.googlenet(init_weights=False, transform_input=True)
    torch.testing.assert_close((pixels - mean) / std, network._transform_input(theirs[None])[0])


def test_auxiliary_classifiers_count_three_tenths() -> None:
    torch.manual_seed(0)
    network = build_model("googlenet", classes=5).eval()
    assert isinstance(network, GoogLeNet)
    objective = network.objective().eval()
    assert isinstance(objective, DeepSupervision)
    x, y = torch.randn(2, 3, 64, 64), torch.tensor([1, 4])
    with torch.no_grad():
        outputs = objective(x)
        assert torch.equal(outputs[0], network(x))
        assert [tuple(each.shape) for each in outputs] == [(2, 5)] * 3
        # They see the outputs of 4a and 4d.
        through = network.features(x)["inception3"]
        for module in ("maxpool3", "inception4a"):
            through = network.get_submodule(module)(through)
        assert torch.equal(objective.companions[0](through), outputs[1])
        for letter in "bcd":
            through = network.get_submodule(f"inception4{letter}")(through)
        assert torch.equal(objective.companions[1](through), outputs[2])
    first, second, third = (F.cross_entropy(each, y) for each in outputs)
    for progress in (0.0, 0.9):
        torch.testing.assert_close(objective.loss(outputs, y, progress), first + 0.3 * (second + third))


def test_response_normalisation_is_pytorchs() -> None:
    x = 30 * torch.randn(2, 9, 4, 3)
    expected = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)(x)
    torch.testing.assert_close(LocalResponseNorm()(x), expected)
    assert not torch.allclose(expected, x, rtol=1e-3)


@pytest.mark.parametrize("side", [1, 2, 7, 14, 15])
def test_pooling_fits_beside_a_convolution_with_stride(side: int) -> None:
    x = -torch.rand(1, 2, side, side)
    pooled = HalvingMaxPool2d()(x)
    assert pooled.shape == nn.Conv2d(2, 2, 3, 2, padding=1)(x).shape
    if side % 2 == 0:
        assert torch.equal(pooled, F.max_pool2d(x, 3, 2, ceil_mode=True))


@pytest.mark.parametrize(("name", "depth"), [("googlenet", 22), ("googlenet_bn", 22), ("bn_inception", 34)])
def test_depth_is_the_longest_way(name: str, depth: int) -> None:
    with torch.device("meta"):
        model = build_model(name)
    longest = 0
    for child in model.children():
        ways = list(child.children()) if type(child).__name__ == "Inception" else [child]
        layers = [sum(isinstance(m, nn.Conv2d | nn.Linear) for m in way.modules()) for way in ways]
        longest += max(layers)
    assert model.depth == longest == depth
