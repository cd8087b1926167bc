"""A detection problem made in a second: coloured squares, discs and triangles on noisy ground."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from residual.data.masks import box_mask
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
    masks: bool = False,
) -> Path:
    """Write images of 48 x 48 with up to three shapes, the splits train and test.

    Args:
        sides: of each class; None for 12 to 24 pixels.
        masks: write images of instances as well.
    """
    random = np.random.default_rng(seed)
    for name in ("JPEGImages", "Annotations", "ImageSets/Main", *(["SegmentationObject"] if masks else [])):
        (folder / name).mkdir(parents=True)
    for split, count in (("train", train), ("test", test)):
        names = [f"{split}{number:03d}" for number in range(count)]
        for name in names:
            instances = folder / "SegmentationObject" / f"{name}.png" if masks else None
            objects = _image(folder / "JPEGImages" / f"{name}.png", random, sides, instances)
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
    """Write the images of a devkit's 2007 in COCO's layout, the splits train2014 and val2014.

    Masks are the boxes, as polygons and as run lengths in turn.
    """
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
                outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
                runs = box_mask((x1, y1, x2, y2), (SIDE, SIDE)).as_json()
                shape = {"segmentation": runs if len(boxes) % 2 else outline}
                boxes.append({"id": len(boxes), **box, **shape})
        categories = [{"id": k + 1, "name": name} for k, name in enumerate(shapes.classes)]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def write_yolo(folder: Path, devkit: Path) -> Path:
    """Write the images of a devkit's 2007 in YOLO's layout, the splits train and val."""
    for split, part in (("train", "2007/trainval"), ("val", "2007/test")):
        shapes = load_voc(devkit, [part], CLASSES)
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for annotated in shapes.images:
            shutil.copy(annotated.path, folder / "images" / split)
            found = zip((annotated.boxes / SIDE).tolist(), annotated.labels.tolist(), strict=True)
            lines = [
                f"{label} {(x1 + x2) / 2} {(y1 + y2) / 2} {x2 - x1} {y2 - y1}\n"
                for (x1, y1, x2, y2), label in found
            ]
            (folder / "labels" / split / f"{annotated.path.stem}.txt").write_text("".join(lines))
    names = "".join(f"  {k}: {name}\n" for k, name in enumerate(CLASSES))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    return folder


#: What shapes are called in ImageNet's detection task: ping-pong ball, bookshelf, pizza.
SYNSETS = ("n03942813", "n02870880", "n07873807")


def write_imagenet_det(folder: Path, devkit: Path) -> Path:
    """Write the images of a devkit in the layout of ImageNet's detection task.

    Six for training, listed for the classes that they show, two more as negatives of the first class, which
    have no boxes; ten for validation; four for testing.
    """
    lists = folder / "ImageSets" / "DET"
    lists.mkdir(parents=True)
    by_class: list[list[str]] = [[], [], []]
    listed: dict[str, list[str]] = {"val": [], "test": []}
    for part, split in (
        *(("train", "2007/trainval"), ("val", "2012/trainval"), ("val", "2012/test")),
        ("test", "2007/test"),
    ):
        below = "ILSVRC2014_train_0000/" if part == "train" else ""
        images = folder / "Data" / "DET" / part / below
        annotations = folder / "Annotations" / "DET" / part / below
        images.mkdir(parents=True, exist_ok=True)
        annotations.mkdir(parents=True, exist_ok=True)
        for annotated in load_voc(devkit, [split], CLASSES).images:
            name = f"ILSVRC_{part}_{annotated.id}"
            Image.open(annotated.path).save(images / f"{name}.JPEG", quality=95)
            if part != "test":
                found = zip(annotated.boxes.int().tolist(), annotated.labels.tolist(), strict=True)
                # Pixels from 0, the last one inside.
                objects = [(SYNSETS[label], (x1, y1, x2 - 1, y2 - 1)) for (x1, y1, x2, y2), label in found]
                (annotations / f"{name}.xml").write_text(_annotation(objects, first=0))
            if part == "train":
                for label, lines in enumerate(by_class):
                    lines.append(f"{below}{name} {1 if label in annotated.labels else -1}\n")
            else:
                listed[part].append(f"{name} {len(listed[part]) + 1}\n")
    extra = folder / "Data" / "DET" / "train" / "ILSVRC2013_train_extra0"
    extra.mkdir()
    for number in range(2):
        Image.new("RGB", (SIDE, SIDE)).save(extra / f"{number}.JPEG")
        by_class[0].append(f"{extra.name}/{number} -1\n")
    for label, lines in enumerate(by_class, start=1):
        (lists / f"train_{label}.txt").write_text("".join(lines))
    for part, lines in listed.items():
        (lists / f"{part}.txt").write_text("".join(lines))
    return folder


def _image(
    file: Path,
    random: np.random.Generator,
    sides: tuple[Sides, Sides, Sides] | None,
    instances: Path | None,
) -> list[tuple[str, tuple[int, int, int, int]]]:
    ground = random.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
    image = Image.fromarray(ground)
    numbers = Image.new("P", (SIDE, SIDE))
    numbers.putpalette(
        [value for number in range(256) for value in (255 * (number > 0), 80 * number % 256, 0)]
    )
    draws = ImageDraw.Draw(image), ImageDraw.Draw(numbers)
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
        objects.append((name, box))
        corners = [(x, y + side - 1), (x + side - 1, y + side - 1), (x + side // 2, y)]
        for draw, fill in zip(draws, (colour, len(objects)), strict=True):
            if name == "disc":
                draw.ellipse(box, fill=fill)
            elif name == "square":
                draw.rectangle(box, fill=fill)
            else:
                draw.polygon(corners, fill=fill)
    image.save(file)
    if instances:
        numbers.save(instances)
    return objects


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _annotation(objects: list[tuple[str, tuple[int, int, int, int]]], first: int = 1) -> str:
    """Return VOC's XML; ``first`` is the number of the first pixel."""
    items = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1 + first}</xmin><ymin>{y1 + first}</ymin>"
        f"<xmax>{x2 + first}</xmax><ymax>{y2 + first}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in objects
    )
    return f"<annotation><size><width>{SIDE}</width><height>{SIDE}</height></size>{items}</annotation>"
