"""Localization's layouts in miniature: Tiny ImageNet's and ILSVRC's, one coloured square an image."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from residual.detection.backbones import measure_batch_norm
from residual.models import build_model
from residual.models.preprocessing import Preprocessing
from residual.models.weights import save_weights

#: Classes by WordNet id, each a colour.
WNIDS = {"n01443537": (220, 30, 30), "n02124075": (30, 220, 30), "n03444034": (40, 40, 230)}
SIDE = 64


def write_tiny(folder: Path, train: int = 4, val: int = 3, seed: int = 0) -> Path:
    """Write Tiny ImageNet's layout, so many images of each class.

    On each is a square of its class's colour, of 24 to 40 pixels, whose box is listed.
    """
    random = np.random.default_rng(seed)
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (folder / "words.txt").write_text("".join(f"{wnid}\tname of {wnid}, other name\n" for wnid in WNIDS))
    annotations: list[str] = []
    for wnid, colour in WNIDS.items():
        (folder / "train" / wnid / "images").mkdir(parents=True)
        lines = []
        for number in range(train):
            name = f"{wnid}_{number}.JPEG"
            box = _image(folder / "train" / wnid / "images" / name, colour, random)
            lines.append("\t".join(map(str, (name, *box))) + "\n")
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("".join(lines))
        for _ in range(val):
            name = f"val_{len(annotations)}.JPEG"
            box = _image(folder / "val" / "images" / name, colour, random)
            annotations.append("\t".join(map(str, (name, wnid, *box))) + "\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    return folder


def xml(*objects: tuple[str, int, int, int, int], size: tuple[int, int] = (SIDE, SIDE)) -> str:
    """Return ILSVRC's annotation of objects: a WordNet id and the first and last pixel, counted from 0."""
    items = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in objects
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{items}</annotation>"


def _image(file: Path, colour: tuple[int, ...], random: np.random.Generator) -> tuple[int, int, int, int]:
    """Write an image; return its square's first and last pixel, counted from 0."""
    pixels = random.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
    side = int(random.integers(24, 41))
    x, y = (int(v) for v in random.integers(0, SIDE - side + 1, 2))
    pixels[y : y + side, x : x + side] = colour
    Image.fromarray(pixels).save(file, quality=95)
    return x, y, x + side - 1, y + side - 1


def write_classifier(folder: Path, name: str = "cifar_resnet8") -> Path:
    """Write the weights folder of a classifier of the three classes that nobody has trained; return it."""
    torch.manual_seed(0)
    network = build_model(name, classes=len(WNIDS))
    measure_batch_norm(network, [torch.randn(8, 3, 32, 32)])
    preprocessing = Preprocessing(torch.full((3,), 0.2), torch.full((3,), 0.25))
    save_weights(folder, network, name=name, options={}, preprocessing=preprocessing, classes=tuple(WNIDS))
    return folder


#: Settings of tiny-imagenet-localization-resnet18 that make a run of the squares above last a few seconds.
SQUARES = [
    "name=squares",
    "data.size=32",
    "data.shorter_side=[32,40]",
    "localizer.anchor_sizes=[12,18]",
    "localizer.aspect_ratios=[1]",
    "batch.size=8",
    "batch.at_once=8",
    "schedule.epochs=null",
    "schedule.iterations=120",
    "schedule.learning_rate=0.03",
    "evaluate_every=120",
    "checkpoint_every=60",
]
