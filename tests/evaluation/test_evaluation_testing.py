"""The one path from images to errors."""

import pytest
import torch
import torch.nn.functional as F

from residual import build_model
from residual.data.dataset import Dataset
from residual.evaluation.labelled import ImagesInMemory
from residual.evaluation.metrics import Metrics
from residual.evaluation.testing import evaluate
from residual.evaluation.views import whole_images


def test_evaluation_counts_every_image_once() -> None:
    torch.manual_seed(0)
    model = build_model("cifar_resnet8", classes=10, in_channels=1)
    images = torch.randint(0, 256, (613, 1, 8, 8), dtype=torch.uint8)
    targets = torch.randint(10, (613,))
    dataset = Dataset("made", tuple("0123456789"), images, targets, torch.arange(613))
    model.eval()

    def share(rank: int, ranks: int) -> Metrics:
        part = ImagesInMemory(dataset.subset(torch.arange(rank, 613, ranks), "made"))
        return evaluate(model, lambda x: x.float() / 255, part, whole_images((1, 8, 8))).metrics

    metrics = share(0, 1)
    with torch.no_grad():
        scores = model(images.float() / 255)
    top5 = scores.topk(5).indices
    assert metrics.images == 613
    assert metrics.top1_error == pytest.approx(100 * (scores.argmax(1) != targets).float().mean().item())
    assert metrics.top5_error == pytest.approx(
        100 * (top5 != targets[:, None]).all(1).float().mean().item(), rel=1e-5
    )
    assert metrics.loss == pytest.approx(F.cross_entropy(scores, targets).item(), rel=1e-5)
    assert sum(share(rank, 3).images for rank in range(3)) == 613
