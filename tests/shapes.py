"""A detection problem made in a second: coloured squares, discs and triangles on noisy ground."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from residual.data.voc import load_voc

CLASSES = ("disc", "square", "triangle")
SIDE = 48


#: The sides that shapes of a class have, least and most.
Sides = tuple[int, int]


def write_shapes(
    folder: Path,
    train: int = 120,
    test: int = 40,
    seed: int = 0,
    sides: tuple[Sides, Sides, Sides] | None = None,
) -> Path:
    """Write images of 48 x 48 with up to three shapes, the splits train and test.

    Args:
        sides: of each class; None for 12 to 24 pixels.
    """
    random = np.random.default_rng(seed)
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for split, count in (("train", train), ("test", test)):
        names = [f"{split}{number:03d}" for number in range(count)]
        for name in names:
            objects = _image(folder / "JPEGImages" / f"{name}.png", random, sides)
            (folder / "Annotations" / f"{name}.xml").write_text(_annotation(objects))
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def write_devkit(folder: Path) -> Path:
    """Write a VOCdevkit of two years: trainval of 6 images, test of 4."""
    for seed, year in enumerate(("VOC2007", "VOC2012")):
        lists = write_shapes(folder / year, train=6, test=4, seed=seed) / "ImageSets" / "Main"
        shutil.move(lists / "train.txt", lists / "trainval.txt")
    return folder


def write_coco(folder: Path, devkit: Path) -> Path:
    """Write the images of a devkit's 2007 in COCO's layout, the splits train2014 and val2014."""
    (folder / "annotations").mkdir(parents=True)
    for split, part in (("train2014", "2007/trainval"), ("val2014", "2007/test")):
        shapes = load_voc(devkit, [part], CLASSES)
        (folder / split).mkdir()
        images: list[dict[str, Any]] = []
        boxes: list[dict[str, Any]] = []
        for number, annotated in enumerate(shapes.images):
            shutil.copy(annotated.path, folder / split)
            images.append({"id": number, "file_name": annotated.path.name, "width": SIDE, "height": SIDE})
            found = zip(annotated.boxes.tolist(), annotated.labels.tolist(), strict=True)
            for (x1, y1, x2, y2), label in found:
                box = {"image_id": number, "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                boxes.append({"id": len(boxes), **box})
        categories = [{"id": k + 1, "name": name} for k, name in enumerate(shapes.classes)]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def _image(
    file: Path, random: np.random.Generator, sides: tuple[Sides, Sides, Sides] | None
) -> list[tuple[str, tuple[int, int, int, int]]]:
    ground = random.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
    image = Image.fromarray(ground)
    draw = ImageDraw.Draw(image)
    objects: list[tuple[str, tuple[int, int, int, int]]] = []
    for _ in range(random.integers(1, 4)):
        number = random.integers(0, 3) if sides else None
        least, most = (12, 24) if sides is None else sides[number]
        side = int(random.integers(least, most + 1))
        x, y = (int(v) for v in random.integers(0, SIDE - side, 2))
        box = (x, y, x + side - 1, y + side - 1)
        if any(_touch(box, other) for _, other in objects):
            continue
        name = CLASSES[random.integers(0, 3) if number is None else number]
        colour = tuple(int(v) for v in random.integers(120, 256, 3))
        if name == "disc":
            draw.ellipse(box, fill=colour)
        elif name == "square":
            draw.rectangle(box, fill=colour)
        else:
            draw.polygon([(x, y + side - 1), (x + side - 1, y + side - 1), (x + side // 2, y)], fill=colour)
        objects.append((name, box))
    image.save(file)
    return objects


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _annotation(objects: list[tuple[str, tuple[int, int, int, int]]]) -> str:
    """Return VOC's XML; pixels are counted from 1."""
    items = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2 + 1}</xmax><ymax>{y2 + 1}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in objects
    )
    return f"<annotation><size><width>{SIDE}</width><height>{SIDE}</height></size>{items}</annotation>"
