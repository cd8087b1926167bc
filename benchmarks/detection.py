"""Faster R-CNN on ResNet-101 cut at conv4, training and testing, against torchvision's own FasterRCNN.

Every turn of a side has a process of its own, and the sides take turns. See README.md beside this file.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from paired import (
    check_new_file,
    environment,
    in_new_process,
    in_rounds,
    peak_bytes,
    print_checks,
    print_table,
    run,
    spread,
    write_json,
)
from rich.console import Console
from torch import Tensor, nn

from residual.errors import InputError

#: Each of ours is compared with torchvision in the same precision.
SIDES = {
    "torchvision": "torchvision, eager",
    "ours": "residual",
    "torchvision-bfloat16": "torchvision, autocast",
    "ours-bfloat16": "residual, bfloat16",
}
TASKS = ("inference", "training")
#: Where a block's stride is: on the 3x3 convolution (torchvision), or on the first 1x1 (the paper).
VARIANTS = ("v1.5", "v1")
#: By device, task and precision.
WANTED = {
    ("cpu", "inference", "float32"): 2.0,
    ("cpu", "inference", "bfloat16"): 2.5,
    ("cpu", "training", "float32"): 1.3,
    ("cpu", "training", "bfloat16"): 1.3,
    ("cuda", "inference", "float32"): 1.3,
    ("cuda", "inference", "bfloat16"): 1.3,
    ("cuda", "training", "float32"): 1.2,
    ("cuda", "training", "bfloat16"): 1.2,
}

CLASSES, HEIGHT, WIDTH, PROPOSALS, REGIONS = 20, 600, 800, 300, 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TheirHead(nn.Module):
    """conv5_x and global average pooling for each region, as torchvision's documentation has a box head."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(x).mean(dim=(2, 3))


def quieten(network: nn.Module) -> None:
    """Make each block's branch small: random weights with fixed BN would let the signal overflow."""
    for name, module in network.named_modules():
        if name.endswith("bn3"):
            nn.init.constant_(module.weight, 0.1)


def torchvision_detector(variant: str) -> nn.Module:
    """A FasterRCNN from a backbone, an anchor generator and a box head of one's own, as documented."""
    import torchvision
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
    from torchvision.models.detection.rpn import AnchorGenerator
    from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

    network = torchvision.models.resnet101(norm_layer=FrozenBatchNorm2d)
    quieten(network)
    if variant == "v1":
        for stage in (network.layer2, network.layer3, network.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    parts = [*list(network.children())[:4], network.layer1, network.layer2, network.layer3]
    for part in parts[:5]:  # conv1 and conv2_x do not learn
        part.requires_grad_(False)
    backbone = nn.Sequential(*parts)
    backbone.out_channels = 1024  # type: ignore[assignment]
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(((128, 256, 512),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=14, sampling_ratio=2),
        box_head=TheirHead(network.layer4),
        box_predictor=FastRCNNPredictor(2048, CLASSES + 1),
        min_size=HEIGHT,
        max_size=1000,
        rpn_pre_nms_top_n_train=12_000,
        rpn_pre_nms_top_n_test=6_000,
        rpn_post_nms_top_n_train=2_000,
        rpn_post_nms_top_n_test=PROPOSALS,
        box_batch_size_per_image=REGIONS,
        box_nms_thresh=0.3,
    )


def our_detector(variant: Any) -> Any:
    from residual.detection.backbones import make_backbone
    from residual.detection.weights import build_detector
    from residual.models import build_model
    from residual.models.frozen import freeze_batch_norm
    from residual.models.preprocessing import Preprocessing
    from residual.recipes.detection import Detector
    from residual.recipes.schema import Model

    # torchvision's way of pooling, so that both do the same work.
    numbers = Detector(backbone=Model(name="resnet101", variant=variant), pooling="align", regions=REGIONS)
    network = build_model("resnet101", variant=variant)
    quieten(network)
    backbone = make_backbone(network)
    freeze_batch_norm(backbone)
    preprocessing = Preprocessing(torch.tensor(MEAN), torch.tensor(STD))
    return build_detector(numbers, backbone, CLASSES, preprocessing)


def random_images(count: int, seed: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return uint8 images of one size, and eight objects on each: boxes and labels."""
    random = torch.Generator().manual_seed(seed)
    images, boxes, labels = [], [], []
    for _ in range(count):
        images.append(torch.randint(256, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=random))
        corners = torch.rand(8, 2, generator=random) * torch.tensor([WIDTH - 320, HEIGHT - 320])
        sides = 60 + 250 * torch.rand(8, 2, generator=random)
        boxes.append(torch.cat([corners, corners + sides], dim=1))
        labels.append(torch.randint(CLASSES, (8,), generator=random))
    return images, boxes, labels


def count_regions(ours: bool, seen: list[int]) -> None:
    """Note how many regions conv5_x sees in each pass: both sides have to do the same work."""
    from residual.detection.backbones import ResidualBackbone

    kind, method = (ResidualBackbone, "head_maps") if ours else (TheirHead, "forward")
    original = getattr(kind, method)

    def noted(self: nn.Module, regions: Any) -> Tensor:
        # Ours come in parts, each of all regions.
        seen.append(len(regions[0] if ours else regions))
        return original(self, regions)

    setattr(kind, method, noted)


def autocast(device: torch.device, side: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16, side.endswith("bfloat16"))


def their_inference(side: str, variant: str, device: torch.device) -> Callable[[list[Tensor]], Any]:
    model = torchvision_detector(variant).eval().to(device)

    @torch.inference_mode()
    def work(images: list[Tensor]) -> Any:
        with autocast(device, side):
            return model([image.to(device) / 255 for image in images])

    return work


def our_inference(side: str, variant: str, device: torch.device) -> Callable[[list[Tensor]], Any]:
    from residual.detection.inference import DetectionOptions, detect
    from residual.models.inference import fold_batchnorm

    model: Any = fold_batchnorm(our_detector(variant)).to(device).to(memory_format=torch.channels_last)
    how = DetectionOptions(precision="bfloat16" if side.endswith("bfloat16") else "float32")
    return lambda images: detect([model], images, how)


def their_training(side: str, variant: str, device: torch.device, count: int) -> Callable[[], Any]:
    model = torchvision_detector(variant).train().to(device)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-5, momentum=0.9, weight_decay=5e-4)
    images, boxes, labels = random_images(count, 1)

    def work() -> Any:
        targets = [
            {"boxes": b.to(device), "labels": (c + 1).to(device)} for b, c in zip(boxes, labels, strict=True)
        ]
        with autocast(device, side):
            losses = sum(model([image.to(device) / 255 for image in images], targets).values())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        return float(losses.detach())  # what the reference loop shows

    return work


def our_training(side: str, variant: str, device: torch.device, count: int) -> Callable[[], Any]:
    from residual.data.box_batches import TrainingImage
    from residual.detection.training import LossMeter
    from residual.training.sgd import SGD

    model = our_detector(variant).train().to(device).to(memory_format=torch.channels_last)
    optimizer = SGD(model, momentum=0.9, weight_decay=5e-4, form="pytorch")
    meter = LossMeter(device, model.losses)
    images, boxes, labels = random_images(count, 1)
    none = torch.empty(0, 4)
    loaded = [
        TrainingImage(*each, none, seed) for seed, each in enumerate(zip(images, boxes, labels, strict=True))
    ]

    def work() -> None:
        with autocast(device, side):
            losses = model([image.to(device) for image in loaded])
        (losses.sum() / count).backward()
        meter.add(losses.detach(), count, 0)
        optimizer.step(1e-5)

    return work


def measure(
    side: str, task: str, variant: str, device_name: str, count: int, passes: int
) -> dict[str, float]:
    """Return images/s of a side, and its peak of memory."""
    from residual.device import arithmetic, full_float32, keep_freed_memory

    device, short = torch.device(device_name), side.endswith("bfloat16")
    with contextlib.ExitStack() as stack:
        if side.startswith("ours"):
            keep_freed_memory()  # as the commands do
            precision = "bfloat16" if short else "tf32"
            stack.enter_context(arithmetic(device, precision, deterministic=False, one_size=False))
        if task == "inference" and not short:
            # Ours tests in float32; PyTorch's convolutions would shorten factors on a GPU.
            stack.enter_context(full_float32(device))
        return timed(side, task, variant, device, count, passes)


def timed(
    side: str, task: str, variant: str, device: torch.device, count: int, passes: int
) -> dict[str, float]:
    """Return what ``measure`` does, in the arithmetic that it has set."""
    ours = side.startswith("ours")
    torch.manual_seed(0)
    if task == "inference":
        images, _, _ = random_images(count, 1)
        function = (our_inference if ours else their_inference)(side, variant, device)
        work: Callable[[], Any] = partial(function, images)
    else:
        work = (our_training if ours else their_training)(side, variant, device, count)

    regions: list[int] = []
    count_regions(ours, regions)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(1 if device.type == "cpu" else 5):
        work()
    wait()
    regions.clear()
    # A core's own time says what it can do, whatever others do on the machine.
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    start = clock()
    for _ in range(passes):
        work()
    wait()
    seconds = clock() - start
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_bytes()
    each = (PROPOSALS if task == "inference" else REGIONS) * count
    if regions != [each] * passes:
        raise RuntimeError(f"{side}: conv5_x saw {regions} regions, not {each} in each pass")
    return {"images_per_second": count * passes / seconds, "peak_bytes": peak}


def summarize(rounds: list[dict[str, Any]], device: str) -> tuple[dict[str, Any], dict[str, bool]]:
    """Return medians, ratios taken within a round, and whether the targets hold."""
    summary: dict[str, Any] = {}
    checks: dict[str, bool] = {}
    for measured in [key for key in rounds[0] if key != "round"]:
        summary[measured] = {}
        task, variant = measured.split(", ")
        for side in rounds[0][measured]:
            theirs = side.replace("ours", "torchvision")
            turns = [r[measured] for r in rounds]
            ratio = spread([t[side]["images_per_second"] / t[theirs]["images_per_second"] for t in turns])
            summary[measured][side] = {
                "images_per_second": median(t[side]["images_per_second"] for t in turns),
                "peak_bytes": max(t[side]["peak_bytes"] for t in turns),
                "ratio": ratio,
            }
            precision = "bfloat16" if side.endswith("bfloat16") else "float32"
            wanted = WANTED.get((device.split(":")[0], task, precision))
            if wanted and side != theirs:
                name = f"{task} of {variant}, {SIDES[side]}: at least {wanted} times torchvision"
                checks[name] = ratio["median"] >= wanted
    return summary, checks


def show(console: Console, result: dict[str, Any]) -> None:
    rows = [
        (
            measured,
            SIDES[side],
            f"{values['images_per_second']:.3g}",
            f"{values['ratio']['median']:.2f}",
            f"{values['ratio']['min']:.2f}-{values['ratio']['max']:.2f}",
            f"{values['peak_bytes'] / 1e9:.2f}",
        )
        for measured, sides in result["summary"].items()
        for side, values in sides.items()
    ]
    title = f"Faster R-CNN, ResNet-101-C4, {HEIGHT} x {WIDTH}, {PROPOSALS} proposals"
    print_table(console, title, "torchvision", rows)
    print_checks(console, result["checks"])


def benchmark(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each side gets.")] = 3,
    images: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 2,
    passes: Annotated[int, typer.Option(min=1, help="Timed batches in a turn.")] = 2,
    tasks: Annotated[str, typer.Option(help="inference, training or both.")] = "inference,training",
    variants: Annotated[str, typer.Option(help="Of the network: v1.5, v1 or both.")] = ",".join(VARIANTS),
    sides: Annotated[str, typer.Option(help="Sides to measure.")] = ",".join(SIDES),
    out: Annotated[Path | None, typer.Option(help="JSON file to write; it must be new.")] = None,
) -> None:
    """Measure a ResNet-101-C4 detector in turns with torchvision's FasterRCNN around the same network."""
    check_new_file(out)
    chosen = {"tasks": tasks.split(","), "variants": variants.split(","), "sides": sides.split(",")}
    for option, known in (("tasks", TASKS), ("variants", VARIANTS), ("sides", tuple(SIDES))):
        if unknown := set(chosen[option]) - set(known):
            raise InputError(f"--{option}: {min(unknown)!r} is none of {', '.join(known)}")
    if missing := {side.replace("ours", "torchvision") for side in chosen["sides"]} - set(chosen["sides"]):
        raise InputError(f"--sides: ours is compared with {min(missing)}; name it as well")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no CUDA device here")
    # Before the rounds: the commit that they ran from.
    described = environment(device)

    def turn_of(task: str, variant: str, side: str) -> dict[str, float]:
        found = in_new_process(partial(measure, side, task, variant, device, images, passes))
        print(f"{task}, {variant}, {SIDES[side]}: {found['images_per_second']:.3g} images/s", file=sys.stderr)
        return found

    def turn(number: int) -> dict[str, Any]:
        return {"round": number} | {
            f"{task}, {variant}": {side: turn_of(task, variant, side) for side in chosen["sides"]}
            for task in chosen["tasks"]
            for variant in chosen["variants"]
        }

    found = in_rounds(rounds, turn)
    summary, checks = summarize(found, device)
    result = {
        "benchmark": "detection",
        "environment": described,
        "settings": {"rounds": rounds, "images": images, "passes": passes},
        "summary": summary,
        "checks": checks,
        "rounds": found,
    }
    show(Console(highlight=False), result)
    write_json(result, out)


if __name__ == "__main__":
    run(
        benchmark,
        """\b
Examples:
  python benchmarks/detection.py --tasks inference --images 1 --out results/benchmarks/detection_cpu.json
  python benchmarks/detection.py --device cuda --images 4 --passes 30
""",
    )
