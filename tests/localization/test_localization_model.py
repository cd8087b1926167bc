"""Per-class regression: only what is asked for is computed, and it is what all of it would be."""

import pytest
import torch
import torch.nn.functional as F
from conftest import randomise
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from residual.data.box_batches import TrainingImage
from residual.detection.backbones import Backbone, make_backbone
from residual.localization.model import PerClassHead, PerClassRegression, head_memory
from residual.localization.weights import build_localizer
from residual.models import build_model
from residual.models.frozen import freeze_batch_norm
from residual.models.preprocessing import Preprocessing
from residual.recipes import LOCALIZATION

NO_BOXES = torch.empty(0, 4)


def backbone_of(name: str) -> Backbone:
    backbone = make_backbone(randomise(build_model(name)))
    freeze_batch_norm(backbone)
    return backbone


def localizer(classes: int = 5) -> PerClassRegression:
    torch.manual_seed(0)
    model = PerClassRegression(
        backbone_of("cifar_resnet8"),
        classes,
        Preprocessing(torch.full((3,), 0.5)),
        anchor_sizes=(8, 16),
        aspect_ratios=(1.0, 2.0),
    )
    for layer in (model.head.cls_logits, model.head.bbox_pred):
        torch.nn.init.normal_(layer.weight, std=0.1)
        torch.nn.init.normal_(layer.bias)
    return model.eval()


def pixels(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def test_the_classes_that_are_asked_for_are_those_of_all() -> None:
    torch.manual_seed(0)
    head = PerClassHead(6, classes=4, anchors=3)
    torch.nn.init.normal_(head.cls_logits.bias)
    x = torch.randn(2, 6, 3, 5)
    labels = torch.tensor([[2, 0], [3, 3]])
    with torch.no_grad():
        scores, outputs = head(x, labels)
        features = F.relu(head.conv(x))
        # As the paper says it: 1x1 convolutions of all classes' numbers at every position.
        every = head.cls_logits(features).view(2, 4, 3, 3, 5)  # image, class, anchor, row, column
        boxes = head.bbox_pred(features).view(2, 4, 3, 4, 3, 5)
    assert scores.shape == (2, 2, 45)
    assert outputs.shape == (2, 2, 45, 4)
    for n in range(2):
        for t in range(2):
            k = int(labels[n, t])
            torch.testing.assert_close(scores[n, t], every[n, k].permute(1, 2, 0).flatten())
            torch.testing.assert_close(outputs[n, t], boxes[n, k].permute(2, 3, 0, 1).reshape(45, 4))


def test_a_class_is_where_its_surest_anchor_leads() -> None:
    model = localizer()
    images, labels = pixels(2, 32, 40), torch.tensor([[4, 1], [0, 2]])
    with torch.no_grad():
        boxes, scores = model.locate(images, labels)
        all_scores, outputs, anchors = model.run_head(model.preprocessing(images), labels)
    assert anchors.shape == (16 * 20 * 4, 4)
    # The first position's anchors are around its middle, a pixel from the corner.
    assert ((anchors[:4, :2] + anchors[:4, 2:]) / 2).tolist() == [[1, 1]] * 4
    for n in range(2):
        for t in range(2):
            best = max(range(len(anchors)), key=lambda a: float(all_scores[n, t, a]))
            coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
            (box,) = coder.decode_single(outputs[n, t, best : best + 1], anchors[best : best + 1])
            expected = torch.minimum(box.clamp(min=0), torch.tensor([40.0, 32, 40, 32]))
            torch.testing.assert_close(boxes[n, t], expected)
            assert float(scores[n, t]) == pytest.approx(float(all_scores[n, t, best].sigmoid()))


def test_an_image_teaches_its_own_class_alone() -> None:
    model = localizer().train()
    box = torch.tensor([[6.0, 6, 22, 22]])
    image = TrainingImage(pixels(1)[0], box, torch.tensor([3]), NO_BOXES, 7, torch.tensor([3]))
    losses = model([image])
    losses.sum().backward()
    losses = losses.detach()
    gradient = model.head.cls_logits.weight.grad
    assert gradient is not None
    taught = gradient.view(5, 4, -1).abs().sum(dim=(1, 2)) > 0
    assert taught.tolist() == [False, False, False, True, False]
    # Four anchors that overlap it by a half, and as many that do not by 0.3.
    with torch.no_grad():
        scores, _, anchors = model.run_head(model.preprocessing(image.image[None]), torch.tensor([[3]]))
    overlap = box_iou(box, anchors)[0]
    positive, negative = overlap >= 0.5, overlap < 0.3
    assert int(positive.sum()) > 4
    is_there, is_not = (F.softplus(sign * scores[0, 0]) for sign in (-1, 1))
    low = (is_there[positive].min() + is_not[negative].min()) / 2
    high = (is_there[positive].max() + is_not[negative].max()) / 2
    assert float(low) <= float(losses[0]) <= float(high)


def test_as_many_anchors_are_negative_as_positive() -> None:
    """One anchor alone is near the object; seven negative ones beside it would outweigh it."""
    model = localizer().train()
    box = torch.tensor([[0.0, 0, 5.5, 5.5]])
    image = TrainingImage(pixels(1)[0], box, torch.tensor([3]), NO_BOXES, 7, torch.tensor([3]))
    with torch.no_grad():
        losses = model([image])
        scores, _, anchors = model.run_head(model.preprocessing(image.image[None]), torch.tensor([[3]]))
    overlap = box_iou(box, anchors)[0]
    nearest = overlap == overlap.max()
    assert int(nearest.sum()) == 1
    assert float(overlap.max()) < 0.5
    is_there, is_not = (F.softplus(sign * scores[0, 0]) for sign in (-1, 1))
    possible = (is_there[nearest] + is_not[overlap < 0.3]) / 2
    assert float((possible - losses[0]).abs().min()) < 1e-5


def test_a_part_without_its_object_teaches_nothing() -> None:
    model = localizer().train()
    image = TrainingImage(
        pixels(1)[0], NO_BOXES, torch.empty(0, dtype=torch.int64), NO_BOXES, 7, torch.tensor([2])
    )
    assert model([image]).tolist() == [0, 0]


def test_the_heads_memory_for_imagenet_is_said() -> None:
    recipe = LOCALIZATION["imagenet-localization-resnet101"]
    assert (recipe.batch.size, recipe.localizer.samples) == (256, 8)
    with torch.device("meta"):
        network = build_model("resnet101", **recipe.localizer.backbone.options())
        model = build_localizer(recipe.localizer, network, 1000, Preprocessing(torch.zeros(3)))
    # 3x3 from conv4's 1,024 to 512 channels, and 5 numbers for each of 9 anchors and 1,000 classes.
    count = 1024 * 512 * 9 + 512 + 5 * 9 * 1000 * (512 + 1)
    said = head_memory(model, 256, 224)
    assert f"has {count:,} parameters (333.6 MB" in said
    # 256 images, 14 x 14 positions, four bytes, and their gradients.
    assert "are 18.1 MB, since only" in said
    assert said.endswith("of all classes they would be 18.1 GB")


@pytest.mark.parametrize(("name", "layers"), [("resnet101", 91), ("vgg16", 13)])
def test_layers_that_run_for_each_region_are_taken_off(name: str, layers: int) -> None:
    """In ResNet-101 91 layers are shared (appendix A)."""
    with torch.device("meta"):
        backbone = make_backbone(build_model(name))
        model = PerClassRegression(backbone, 3, Preprocessing(torch.zeros(3)))
    # Projections are no layers.
    kept = [
        name
        for name, module in model.backbone.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and "downsample" not in name
    ]
    assert len(kept) == layers
