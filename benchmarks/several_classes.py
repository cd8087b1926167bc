"""Draw a set with boxes of several classes from Tiny ImageNet's own boxes, in VOC's layout.

Each image is a mosaic of 256 x 256 pixels: a quadrant is one of Tiny ImageNet's images at twice its size,
or four as they are. About a third of them are of the classes that are asked for, and have their boxes; the
others are there to be told from them. What is tested on is drawn from Tiny ImageNet's validation images,
which no classifier has learned from, and no image is used twice. The same seed draws the same set.

    python benchmarks/several_classes.py ~/tiny-imagenet-200 ~/mosaics
    residual detect train voc-finetune --weights weights/resnet18-tiny-imagenet --data-dir ~/mosaics
"""

import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from xml.etree import ElementTree

import typer
from PIL import Image

from residual.class_names import readable
from residual.data.boxes import AnnotatedImage
from residual.data.images import decode, pil_image
from residual.data.located import load_located
from residual.errors import InputError, plural
from residual.files import cannot_write, write_new

SIDE = 64
#: Chance that a quadrant is one image, and that an image is of one of the classes.
LARGE, WANTED = 1 / 2, 1 / 3


def draw(
    data_dir: Path, split: Literal["train", "val"], classes: int, count: int, seed: int
) -> Iterator[tuple[Image.Image, ElementTree.Element, list[str]]]:
    """Yield mosaics, what VOC's XML says of each, and the names of its objects.

    Raises:
        InputError: where the data are wrong, or have too few images for so many.
    """
    located = load_located(data_dir, split).boxes
    names = readable(located.classes)
    if classes >= len(names):
        raise InputError(
            f"{located.name} has {len(names)} classes; --classes is at most {len(names) - 1}, so that others "
            "are left"
        )
    # The same classes for both parts, whatever is drawn of them.
    wanted = set(random.Random(seed).sample(range(len(names)), classes))
    chance = random.Random(f"{seed} {split}")
    # One box on each, of two pixels at least: some programs hold one of a pixel for none.
    images = [
        image
        for image in located.images
        if len(image.boxes) == 1 and (image.boxes[0, 2:] - image.boxes[0, :2]).min() >= 2
    ]
    chance.shuffle(images)
    of_classes = iter([image for image in images if int(image.labels[0]) in wanted])
    others = iter([image for image in images if int(image.labels[0]) not in wanted])
    for _ in range(count):
        mosaic, said, objects = Image.new("RGB", (4 * SIDE, 4 * SIDE)), ElementTree.Element("annotation"), []
        size = ElementTree.SubElement(said, "size")
        for what, number in (("width", 4 * SIDE), ("height", 4 * SIDE), ("depth", 3)):
            ElementTree.SubElement(size, what).text = str(number)
        for x, y, times in places(chance):
            mine = chance.random() < WANTED
            image = next(of_classes if mine else others, None)
            if image is None:
                raise InputError(
                    f"{located.name} has too few images for {count:,} mosaics; lower --train or --test"
                )
            pixels = pil_image(decode(image.path))
            if pixels.size != (SIDE, SIDE):
                raise InputError(
                    f"{image.path} has {pixels.width} x {pixels.height} pixels; Tiny ImageNet's images have "
                    f"{SIDE} x {SIDE}"
                )
            mosaic.paste(pixels.resize((times * SIDE, times * SIDE)), (x, y))
            if mine:
                objects.append(names[int(image.labels[0])])
                said.append(described(image, objects[-1], x, y, times))
        yield mosaic, said, objects


def places(chance: random.Random) -> Iterator[tuple[int, int, int]]:
    """Yield where images lie in a mosaic, and at how many times their size."""
    for x, y in ((0, 0), (2 * SIDE, 0), (0, 2 * SIDE), (2 * SIDE, 2 * SIDE)):
        if chance.random() < LARGE:
            yield x, y, 2
        else:
            yield from ((x + right, y + down, 1) for down in (0, SIDE) for right in (0, SIDE))


def described(image: AnnotatedImage, name: str, x: int, y: int, times: int) -> ElementTree.Element:
    """Return an object as VOC's XML has it: pixels count from 1, and the last one belongs to it."""
    element = ElementTree.Element("object")
    ElementTree.SubElement(element, "name").text = name
    box = ElementTree.SubElement(element, "bndbox")
    x1, y1, x2, y2 = (round(times * side) for side in image.boxes[0].tolist())
    for what, number in (("xmin", x + x1 + 1), ("ymin", y + y1 + 1), ("xmax", x + x2), ("ymax", y + y2)):
        ElementTree.SubElement(box, what).text = str(number)
    return element


def main(
    data_dir: Annotated[Path, typer.Argument(help="Tiny ImageNet's folder, with train and val.")],
    out: Annotated[Path, typer.Argument(help="Folder of the set, where nothing is yet.")],
    classes: Annotated[int, typer.Option(min=1, help="How many classes are to be found.")] = 10,
    train: Annotated[int, typer.Option(min=1, help="Mosaics to learn from.")] = 300,
    test: Annotated[int, typer.Option(min=1, help="Mosaics to test on.")] = 100,
    seed: Annotated[int, typer.Option(help="Draws classes and mosaics.")] = 0,
) -> None:
    """Draw a set with boxes of several classes from Tiny ImageNet's, in VOC's layout."""
    try:
        if out.exists():
            raise InputError(f"{out} exists already; name a new folder")
        # Nothing is written before all is drawn: there may be too few images.
        parts = {
            "trainval": list(draw(data_dir, "train", classes, train, seed)),
            "test": list(draw(data_dir, "val", classes, test, seed)),
        }
        for folder in ("JPEGImages", "Annotations"):
            (out / folder).mkdir(parents=True)
        for part, drawn in parts.items():
            ids, found = [], Counter[str]()
            for number, (mosaic, said, objects) in enumerate(drawn):
                ids.append(f"{part}-{number:04}")
                mosaic.save(out / "JPEGImages" / f"{ids[-1]}.jpg", quality=95)
                ElementTree.indent(said)
                write_new(out / "Annotations" / f"{ids[-1]}.xml", ElementTree.tostring(said, "unicode"))
                found.update(objects)
            write_new(out / "ImageSets" / "Main" / f"{part}.txt", "\n".join(ids) + "\n")
            counts = ", ".join(f"{found[name]} {name}" for name in sorted(found))
            print(f"{part}: {plural(len(ids), 'image')}; {counts}")
    except (InputError, OSError) as error:
        told = cannot_write(out, error) if isinstance(error, OSError) else error
        print(f"several_classes: {told}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    typer.run(main)
