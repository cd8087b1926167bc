"""Networks cut for detection, and what fixed BN is."""

import pytest
import torch
from detectors import small_detector

from residual.detection.backbones import make_backbone, measure_batch_norm
from residual.detection.faster_rcnn import FasterRCNN
from residual.models import build_model
from residual.models.frozen import FrozenBatchNorm2d
from residual.models.inference import fold_batchnorm


def test_fixed_bn_is_bn_in_evaluation_and_folds_into_the_convolution() -> None:
    layer = torch.nn.BatchNorm2d(4)
    layer(torch.randn(8, 4, 5, 5) * 3 + 1)
    torch.nn.init.uniform_(layer.weight)
    torch.nn.init.uniform_(layer.bias)
    x = torch.randn(2, 4, 6, 6)
    assert torch.allclose(FrozenBatchNorm2d(layer)(x), layer.eval()(x), atol=1e-5)
    for name in ("cifar_resnet8", "resnet18"):
        model = small_detector(name).eval()
        fast = fold_batchnorm(model)
        assert not any(isinstance(module, FrozenBatchNorm2d) for module in fast.modules())
        image = torch.randn(3, 64, 80)
        with torch.no_grad():
            slow_map, fast_map = model.maps([image])[0], fast.maps([image])[0]  # type: ignore[operator]
            assert torch.allclose(slow_map, fast_map, atol=1e-3 * float(slow_map.abs().max()))
            pooled = model.pool(model.region_maps(slow_map), torch.tensor([[0.0, 0, 40, 40]]))
            slow, quick = model.head_maps(pooled), fast.head_maps(pooled)  # type: ignore[operator]
            assert torch.allclose(slow, quick, atol=1e-3 * float(slow.abs().max()))


@pytest.mark.parametrize(
    ("name", "channels", "width", "side"),
    [
        ("resnet18", 256, 512, 14),
        ("resnet50", 1024, 2048, 14),
        ("vgg16", 512, 4096, 7),
        ("plain18", 256, 512, 14),
    ],
)
def test_where_networks_are_cut(name: str, channels: int, width: int, side: int) -> None:
    with torch.device("meta"):
        backbone = make_backbone(build_model(name))
        assert (backbone.channels, backbone.width, backbone.roi_size, backbone.stride) == (
            channels,
            width,
            side,
            16,
        )
        assert backbone.shared(torch.empty(1, 3, 96, 64)).shape == (1, channels, 6, 4)
        steps = backbone.steps
        parts = backbone.entry(torch.empty(5, channels, side, side), steps)
        assert [len(part) for part in parts] == [5] * len(steps)
        assert backbone.head_maps(parts).shape[:2] == (5, width)
        backbone.freeze(2)
    frozen = [p.shape[0] for p in backbone.parameters() if not p.requires_grad and p.ndim == 4]
    # VGG: conv1_1 to conv2_2. ResNet: conv1 and conv2_x.
    assert set(frozen) <= {64, 128, 256}
    assert len(frozen) == {"resnet18": 5, "resnet50": 11, "vgg16": 4, "plain18": 5}[name]


def test_a_detector_that_goes_on_learns_what_its_own_recipe_says() -> None:
    """Made of another one's backbone, of which more was frozen."""
    first = small_detector()
    again = FasterRCNN(first.backbone, 2, first.preprocessing, freeze=1)
    assert {name for name, p in again.named_parameters() if not p.requires_grad} == {
        "backbone.network.conv1.weight"
    }


def test_bn_of_a_network_from_scratch_is_measured_exactly() -> None:
    network = build_model("cifar_resnet8")
    batches = [n * torch.randn(2, 3, 16, 16) for n in (1, 2, 3)]
    measure_batch_norm(network, batches)
    with torch.no_grad():
        maps = [network.conv1(batch).transpose(0, 1).flatten(1) for batch in batches]
    mean = torch.stack([values.mean(dim=1) for values in maps]).mean(dim=0)
    variance = torch.stack([values.var(dim=1) for values in maps]).mean(dim=0)
    torch.testing.assert_close(network.bn1.running_mean, mean)
    torch.testing.assert_close(network.bn1.running_var, variance)


def test_vggs_map_covers_the_whole_image() -> None:
    with torch.device("meta"):
        backbone = make_backbone(build_model("vgg16"))
        images = torch.empty(1, 3, 600, 810)
    assert backbone.shared(images).shape == (1, 512, 38, 51)
