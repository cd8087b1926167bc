"""Annotations in PASCAL VOC's layout: the devkit's own years, and anybody's images laid out like them.

    VOC2007/                        or the folder itself, for one's own images
      JPEGImages/ID.jpg
      Annotations/ID.xml
      ImageSets/Main/SPLIT.txt      one ID a line

VOC counts pixels from 1 and names a box by its first and last pixel, so the box from pixel 1 to pixel 10
reaches from 0 to 10 in our coordinates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ..errors import InputError
from .boxes import AnnotatedImage, Annotation, BoxDataset, check_not_empty, make_annotated_image
from .images import DamagedImage, image_size

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Annotation:
    """What an XML file says: (width, height), None where it does not say, and the objects."""

    size: tuple[int, int] | None
    objects: list[Annotation]


def load_voc(
    folder: Path,
    splits: Sequence[str],
    classes: Sequence[str] | None = None,
    *,
    boxes: bool = True,
) -> BoxDataset:
    """Read one or more splits together.

    Args:
        folder: a VOCdevkit, or a folder laid out like one of its years.
        splits: as "2007/trainval" in a devkit, "trainval" in the folder itself.
        classes: names of the classes, None for those that the annotations name, in alphabetical order (which
            is VOC's own).
        boxes: whether there are annotations; the test parts of later years have none.

    Raises:
        InputError: when a folder or split is missing or empty, or an annotation names another class.
    """
    notes: list[str] = []
    found: list[tuple[str, Path, _Annotation, Path]] = []
    seen: set[Path] = set()
    for split in splits:
        root, listing = _locate(folder, split)
        files = _image_files(root)
        ids = [line.strip() for line in _read(listing).splitlines() if line.strip()]
        if not ids:
            raise InputError(f"{listing} is empty; write one image's name a line")
        for name in ids:
            file = files.get(name)
            annotation = root / "Annotations" / f"{name}.xml"
            if file is None:
                notes.append(f"{listing}: there is no image {name} in {root / 'JPEGImages'}; it is left out")
            elif file in seen:
                notes.append(f"{listing}: {name} is listed twice; it counts once")
            elif content := _annotation(annotation, boxes, notes):
                seen.add(file)
                found.append((name, file, content, annotation))
    if classes is None:
        classes = sorted({item.name for _, _, content, _ in found for item in content.objects})
        if not classes and boxes:
            raise InputError(f"{folder}: the annotations of {', '.join(splits)} name no object at all")
    label = {name: number for number, name in enumerate(classes)}
    images: list[AnnotatedImage] = []
    for name, file, content, annotation in found:
        try:
            size = content.size or image_size(file)
        except DamagedImage as error:
            notes.append(f"{error}; it is left out")
            continue
        images.append(make_annotated_image(name, file, size, content.objects, label, str(annotation), notes))
    check_not_empty(images, f"{folder}: {' and '.join(splits)}", notes)
    return BoxDataset(
        "voc",
        tuple(splits),
        tuple(classes),
        tuple(images),
        tuple(notes),
        tuple(range(1, len(classes) + 1)),
    )


def _locate(folder: Path, split: str) -> tuple[Path, Path]:
    """Return the folder that a split lies in, and its listing."""
    year, _, name = split.rpartition("/")
    candidates = [folder / f"VOC{year}", folder / "VOCdevkit" / f"VOC{year}"] if year else [folder]
    root = next((path for path in candidates if path.is_dir()), None)
    if root is None:
        raise InputError(f"there is no folder {candidates[0]}; name the one that holds it with --data-dir")
    listing = root / "ImageSets" / "Main" / f"{name}.txt"
    if not listing.is_file():
        there = sorted(path.stem for path in listing.parent.glob("*.txt") if "_" not in path.stem)
        have = f"; there are {', '.join(there)}" if there else "; VOC's layout has one list a split there"
        raise InputError(f"there is no split {listing}{have}")
    return root, listing


def _image_files(root: Path) -> dict[str, Path]:
    folder = root / "JPEGImages"
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; VOC's layout has the images there")
    return {path.stem: path for path in sorted(folder.iterdir())}


def _annotation(file: Path, boxes: bool, notes: list[str]) -> _Annotation | None:
    """Return an annotation's content, None (and a note) where it is of no use."""
    if not boxes:
        return _Annotation(None, [])
    if not file.is_file():
        notes.append(
            f"{file} is missing; its image is left out (an image without objects has an annotation "
            "without objects)"
        )
        return None
    try:
        root = ElementTree.fromstring(file.read_bytes())
        objects = [_object(item) for item in root.findall("object")]
    except (ElementTree.ParseError, OSError, LookupError) as error:
        notes.append(f"{file} is damaged ({error}); its image is left out")
        return None
    except ValueError as error:
        notes.append(f"{file}: {error}; its image is left out")
        return None
    try:
        width, height = (int(float(root.findtext(f"size/{side}", "0"))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        width = height = 0
    # Some programs leave the size at 0; the image itself knows.
    return _Annotation((width, height) if width > 0 and height > 0 else None, objects)


def _object(element: ElementTree.Element) -> Annotation:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object has no name")
    texts = [element.findtext(f"bndbox/{corner}") for corner in CORNERS]
    try:
        x1, y1, x2, y2 = (float(text or "") for text in texts)
    except ValueError:
        shown = ", ".join(f"{c} {t!r}" for c, t in zip(CORNERS, texts, strict=True))
        raise ValueError(f"the box of a {name} is not four numbers ({shown})") from None
    # A box whose first pixel is its last has no area in the programs that write such boxes: to them, pixels
    # are corners.
    first = (x1 - (x2 != x1), y1 - (y2 != y1))
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return Annotation(name, (*first, x2, y2), difficult=difficult)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
