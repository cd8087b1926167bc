"""Images with boxes: what every detection dataset is here, whatever it was read from.

Coordinates are continuous: a box (x1, y1, x2, y2) reaches from x1 to x2, the image from 0 to its width. The
pixel column i is the stretch from i to i + 1.
"""

import hashlib
import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..class_names import Form, class_name, in_form
from ..errors import InputError, plural
from ..randomness import Stream, generator
from .identity import identity_of
from .images import DamagedImage, stored_size, upright_box, upright_size
from .masks import Mask, Outline, as_mask, fits, turned_mask
from .threads import in_threads

#: A class with at most this part of another's objects, and a name this like its name, may be misspelt.
FEW, ALIKE = 0.05, 0.8
#: A box may reach so many pixels over the image's edge before it is worth telling: programs that annotate
#: count pixels from 0 or from 1.
TOLERANCE = 2.0
#: Pixels that a box has at least each way: float32 loses what is less, and its logarithm is none.
LEAST_SIDE = 1 / 64
#: Pixels that no side of an image has.
NO_SIDE = 2**31
#: Classes that a sentence names at most.
SHOWN = 20
#: The split of all images, where nothing divides them.
ALL = "trainval"
#: The layouts of annotations that are read: detection's, and localization's.
Layout = Literal["voc", "coco", "yolo", "imagenet-det", "imagenet", "tiny-imagenet"]


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and what is known to be on it.

    Attributes:
        id: its name in the dataset.
        path: of its file.
        size: width and height in pixels as annotated, upright.
        boxes: float32 (M, 4).
        labels: int64 (M,), each in [0, K).
        difficult: bool (M,), objects that VOC neither asks for nor counts against a detector.
        crowd: bool (M,), regions of many objects that COCO does not tell apart.
        areas: float32 (M,), the objects' areas, by which COCO calls them small, medium or large.
        number: of the image in the annotations' own counting, for submissions; 0 where it has none. Of COCO
            its id as the JSON has it, a number or a text.
        unjudged: classes that are nothing here, neither object nor mistake: ImageNet DET's blacklist.
        masks: of the M objects, None for one that has none; empty where none has one, or none was asked for.
    """

    id: str
    path: Path
    size: tuple[int, int]
    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    crowd: Tensor
    areas: Tensor
    number: int | str = 0
    unjudged: tuple[int, ...] = ()
    masks: tuple[Mask | None, ...] = ()

    @property
    def wanted(self) -> Tensor:
        """Which boxes are objects to learn and to find: bool (M,)."""
        return ~(self.difficult | self.crowd | self.is_unjudged(self.labels))

    def is_unjudged(self, labels: Tensor) -> Tensor:
        """Return which of some labels are of classes that are not judged here: bool, of their shape."""
        return torch.isin(labels, torch.tensor(self.unjudged, dtype=torch.int64, device=labels.device))


@dataclass(frozen=True)
class BoxDataset:
    """Images with boxes in files.

    Attributes:
        layout: what it was read from.
        splits: of the dataset that were read together, as "2007/test".
        classes: names of the K classes, in the order of the labels.
        images: each a valid example, those without boxes too.
        notes: one sentence for everything that was left out or cut.
        categories: the number of each class in the annotations' own counting, for submissions; of COCO its
            id as the JSON has it, a number or a text. None where they do not know the class.
        part: which of the splits' images these are, as "40 for validation"; "" for all.
    """

    layout: Layout
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    notes: tuple[str, ...]
    categories: tuple[int | str | None, ...]
    part: str = ""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def name(self) -> str:
        """Of the dataset and its splits, as "voc 2007/test"."""
        return f"{self.layout} {'+'.join(self.splits)}" + (f" ({self.part})" if self.part else "")

    @property
    def has_masks(self) -> bool:
        """Whether any object that is to be learned and found has a mask."""
        return any(self.mask_counts())

    def subset(self, chosen: Collection[int], use: str) -> "BoxDataset":
        """Return the images at some positions, in their order here.

        Args:
            use: what for, as "validation".
        """
        images = tuple(self.images[n] for n in sorted(chosen))
        return replace(self, images=images, part=f"{len(images):,} for {use}")

    def listed(self, folder: Path) -> list[tuple[str, str]]:
        """Return each image's path, below a folder where it is there, and its objects' classes in a word."""
        return [
            (
                path_from(folder, annotated),
                "+".join(self.classes[k] for k in annotated.labels.unique().tolist()),
            )
            for annotated in self.images
        ]

    def content(self, form: Form = "NFC", files: bool = True) -> str:
        """Return the identity of the images, and of what is known to be on them.

        Args:
            form: of accents in names of classes.
            files: whether the images' bytes count, too.
        """
        sizes = torch.tensor([annotated.size for annotated in self.images])
        found = {
            what: torch.cat([getattr(annotated, what) for annotated in self.images])
            for what in ("boxes", "labels", "difficult", "crowd", "areas")
        }
        counts = torch.tensor([len(annotated.labels) for annotated in self.images])
        names = [*in_form(self.classes, form), *(annotated.id for annotated in self.images)]
        names += [f"{annotated.id} {annotated.unjudged}" for annotated in self.images if annotated.unjudged]
        masked = self.images if files or self.layout != "yolo" else ()
        names += [
            f"{annotated.id} {place} {mask.counts!r}"
            for annotated in masked
            for place, mask in enumerate(annotated.masks)
            if mask
        ]
        if files:
            paths = [annotated.path for annotated in self.images]
            return identity_of(names, [sizes, counts, *found.values()], paths)
        # Where boxes are parts of an image it may be mended in another size.
        places = found["boxes"] / sizes.repeat(1, 2).repeat_interleave(counts, dim=0)
        kinds = [found[what] for what in ("labels", "difficult", "crowd")]
        return identity_of(names, [counts, (1e4 * places).round(), *kinds])

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells these images from others, by their names; see ``content``."""
        # A name may have any bytes, and JSON any halves of letters.
        ids = "\n".join(annotated.id for annotated in self.images).encode("utf-8", "surrogatepass")
        names = hashlib.sha256(ids).hexdigest()[:16]
        return {"classes": len(self.classes), "images": len(self.images), "files": names}

    def mask_counts(self) -> list[int]:
        """Return the number of objects of each class that have a mask; difficult ones and crowds are none."""
        found = [0] * len(self.classes)
        for annotated in self.images:
            labelled = zip(
                annotated.masks, annotated.wanted.tolist(), annotated.labels.tolist(), strict=False
            )
            for mask, wanted, label in labelled:
                found[label] += bool(mask and wanted)
        return found

    def counts(self) -> list[int]:
        """Return the number of objects of each class; difficult ones and crowds are none."""
        if not self.images:
            return [0] * len(self.classes)
        labels = torch.cat([annotated.labels[annotated.wanted] for annotated in self.images])
        return torch.bincount(labels, minlength=len(self.classes)).tolist()


def path_from(folder: Path, annotated: AnnotatedImage) -> str:
    """Return an image's path below a folder, whatever links lead to that; all of it where it is elsewhere."""
    for path, root in ((annotated.path, folder), (annotated.path.resolve(), folder.resolve())):
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return annotated.path.resolve().as_posix()


def divide(dataset: BoxDataset, share: float, seed: int) -> tuple[BoxDataset, BoxDataset]:
    """Return what remains for training, and a random share of the images for validation.

    A pure function of the images, their labels and the seed. Images are dealt out by the rarest of their
    classes, so that each class has about its share on both sides; one that a single image shows is learned.

    Args:
        share: between 0 and 1.

    Raises:
        InputError: unless both have an image.
    """
    total = len(dataset)
    objects = dataset.counts()
    shown = [set(annotated.labels[annotated.wanted].tolist()) for annotated in dataset.images]
    # Images without objects come last.
    rarest = [min(((objects[k], k) for k in labels), default=(math.inf, 0)) for labels in shown]
    order = torch.randperm(total, generator=generator(seed, Stream.SPLIT)).tolist()
    order.sort(key=rarest.__getitem__)
    held = {
        image
        for place, image in enumerate(order)
        if math.floor((place + 1) * share + 0.5) > math.floor(place * share + 0.5)
    }
    for label in range(len(dataset.classes)):
        of_class = [image for image in order if label in shown[image]]
        if of_class and held.issuperset(of_class):
            held.remove(of_class[0])
    if not 0 < len(held) < total:
        raise InputError(
            f"data.validation={share:g} holds {len(held):,} of the {total:,} images of {dataset.name} out; "
            "both what is learned from and what is held out need one"
        )
    rest = set(range(total)) - held
    return dataset.subset(rest, "training"), dataset.subset(held, "validation")


@dataclass(frozen=True)
class Annotation:
    """One object as its annotation has it, before it is checked.

    Attributes:
        corners: x1, y1, x2, y2.
        name: of its class.
        crowd: whether it is a region of many objects; area: as annotated, None for the box's own.
        shape: its mask, None where it has none or none was asked for.
        place: of the object in an XML file, from 1.
    """

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool = False
    crowd: bool = False
    area: float | None = None
    shape: Outline | Mask | None = None
    place: int = 0


@dataclass(frozen=True)
class Record:
    """An image and its objects as they were read, before they are checked.

    Attributes:
        size: width and height as annotated; None where the annotation does not say.
        where: the annotation's place, for the notes.
        number, unjudged: as of ``AnnotatedImage``; the classes by their names.
        stored: the image's width and height as they are stored, and its EXIF orientation, where the reader
            had to look: for what is annotated in parts of the upright image. None elsewhere.
    """

    id: str
    path: Path
    size: tuple[int, int] | None
    objects: tuple[Annotation, ...]
    where: str
    number: int | str = 0
    unjudged: frozenset[str] = frozenset()
    stored: tuple[tuple[int, int], int] | None = None


def hold_out(split: str) -> str:
    """Return how to train where there is no other split, as a part of a sentence."""
    return f"to train, hold a share of them out: --set data.train={split} --set data.validation=0.2"


def name_splits(there: Iterable[str]) -> str:
    """Return what is to be done about a split that is not there, by the names of those that are."""
    # Of a folder or a year of VOC, as 2007/train: by the last part.
    named = {split.rpartition("/")[2]: split for split in there}
    train = named.get("train", "...")
    test = next((named[part] for part in ("val", "valid", "test") if part in named), "...")
    return (
        f"name them with --set data.train={train} --set data.test={test}, or --split of residual detect "
        "evaluate"
    )


def stated_size(width: int, height: int) -> tuple[int, int] | None:
    """Return the size that an annotation states, None for one that no image has.

    Some programs leave it out or at 0, and the image itself knows.
    """
    return (width, height) if 0 < width < NO_SIDE and 0 < height < NO_SIDE else None


def make_box_dataset(
    layout: Layout,
    splits: Sequence[str],
    records: Sequence[Record],
    classes: Sequence[str] | None,
    known: Mapping[str, int | str] | None,
    notes: list[str],
    place: str,
    boxes: bool,
) -> BoxDataset:
    """Return the dataset of what a reader has found, of any layout.

    Args:
        classes: those that are asked for; objects of others are left out, and noted. None for those that the
            objects have.
        known: classes with their numbers in the annotations' own counting, in their order; None for an
            alphabetical one.
        notes: what the reader has noted so far.
        place: of the splits, for messages.
        boxes: whether there are annotations at all.

    Raises:
        InputError: where there is no image, no object, or none of the classes that are asked for.
    """
    _check_some(records, place, notes)
    classes = None if classes is None else list(map(class_name, classes))
    counts = Counter(item.name for record in records for item in record.objects)
    if not counts and boxes and classes is None:
        raise InputError(f"{place}: the annotations name no object at all{_first(notes)}")
    if classes is None:
        classes = [name for name in known if counts[name]] if known is not None else sorted(counts)
    if counts and not any(counts[name] for name in classes):
        raise InputError(
            f"{place}: no object is of the classes {_named(classes)}; the annotations name "
            f"{_named(sorted(counts))}"
        )
    whole_classes = [
        f"{place}: {plural(counts[name], 'object')} of the class {name!r} left out, "
        f"which is none of {_named(classes)}{_close(name, classes)}"
        for name in sorted(counts.keys() - set(classes))
    ]
    label = {name: number for number, name in enumerate(classes)}
    images = [
        _annotated(record, [item for item in record.objects if item.name in label], label, notes)
        for record in _upright(records, notes)
    ]
    _check_some(images, place, notes)
    if counts and boxes and not any(len(annotated.boxes) for annotated in images):
        raise InputError(f"{place}: no object of the annotations can be used{_first(notes)}")
    if known is None:
        known = {name: number for number, name in enumerate(classes, start=1)}
    return BoxDataset(
        layout,
        tuple(splits),
        tuple(classes),
        tuple(images),
        # Before all else: what is left out first is whole classes.
        (*whole_classes, *notes),
        tuple(known.get(name) for name in classes),
    )


def around(
    x: float, y: float, width: float, height: float, angle: float
) -> tuple[float, float, float, float]:
    """Return the upright box around a rotated one, of its centre, its sides and its angle in radians."""
    across = (abs(width * math.cos(angle)) + abs(height * math.sin(angle))) / 2
    down = (abs(width * math.sin(angle)) + abs(height * math.cos(angle))) / 2
    return x - across, y - down, x + across, y + down


def turned(corners: tuple[float, float, float, float], degrees: float) -> tuple[float, float, float, float]:
    """Return the upright box around one that is turned about its middle: CVAT writes it as it was before."""
    x1, y1, x2, y2 = corners
    if not degrees % 360:
        return corners
    return around((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, math.radians(degrees))


def misspelt(dataset: BoxDataset) -> list[str]:
    """Return a sentence for each class that looks like another one, misspelt.

    It has few objects and a name like it, or the same name but for case, spaces and hyphens.
    """
    counts = dict(zip(dataset.classes, dataset.counts(), strict=True))
    found = []
    for name, few in counts.items():
        for other, many in counts.items():
            # Single letters may be classes of both cases: OCR's.
            same = len(name) > 1 and _plain(name) == _plain(other) and (few, name) < (many, other)
            # "disc 1" and "disc 2" differ on purpose.
            numbered = re.sub(r"\d+", "", name) == re.sub(r"\d+", "", other)
            rare = few <= max(1, FEW * many) and few < many and not numbered
            if name != other and (same or (rare and _alike(name.casefold(), other.casefold()))):
                found.append(
                    f"the class {name!r} has {plural(few, 'object')} and {other!r} has "
                    f"{many:,}; mend the annotations if it is misspelt"
                )
    return found


def _alike(name: str, other: str) -> bool:
    matcher = SequenceMatcher(None, name, other)
    # The first two are upper bounds, which spare nearly all pairs of many classes the third.
    return all(ratio() >= ALIKE for ratio in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.casefold())


def _upright(records: Sequence[Record], notes: list[str]) -> list[Record]:
    """Return records with sizes and boxes as in the upright image, where EXIF turns it.

    Some programs annotate the image as it is shown, others as it is stored: its size tells which.
    """
    kept: list[tuple[Record, tuple[int, int], int]] = []
    frames: dict[str, list[int]] = defaultdict(list)
    # In threads: a PNG's orientation may stand at its end, and is known once it is decoded.
    for record, found in zip(records, in_threads(_stored, records), strict=True):
        if isinstance(found, DamagedImage):
            # Where the annotation has a size, what decodes it says what is wrong, and goes on without it.
            if record.size is None:
                notes.append(f"{found}; it is left out")
            else:
                kept.append((record, record.size, 1))
            continue
        stored, orientation = found
        shown = upright_size(stored, orientation)
        if record.stored:
            kept.append((replace(record, size=shown), stored, orientation))
            continue
        size = record.size or shown
        if size not in (stored, shown):
            # It will be left out when it is read; masks of such a size may be of any.
            record = replace(record, objects=tuple(replace(item, shape=None) for item in record.objects))
        if orientation != 1 and record.objects and size in (stored, shown):
            told = record.size is not None and stored != shown
            frame = ("stored" if size == stored else "shown") if told else "either"
            frames[frame].append(len(kept))
        kept.append((replace(record, size=size), stored, orientation))
    turned = list(frames["stored"])
    if frames["stored"] and not frames["shown"]:
        # One program annotated them all.
        turned += frames["either"]
    elif frames["either"]:
        first = kept[frames["either"][0]][0].path
        notes.append(
            f"{len(frames['either']):,} images are turned by their EXIF orientation, and nothing tells "
            "whether their boxes are of the image as it is shown or as it is stored; the former is assumed, "
            f"the first is {first}"
        )
    upright = [record for record, _, _ in kept]
    for number in turned:
        record, stored, orientation = kept[number]
        objects = tuple(
            replace(
                item,
                corners=upright_box(item.corners, stored, orientation),
                shape=_turned_mask(item, stored, orientation, record.where, notes),
            )
            for item in record.objects
        )
        upright[number] = replace(record, size=upright_size(stored, orientation), objects=objects)
    # An image without objects has the size that it has, whatever its annotation counts from.
    for number, (record, stored, orientation) in enumerate(kept):
        if not record.objects and orientation != 1 and record.size == stored:
            upright[number] = replace(record, size=upright_size(stored, orientation))
    return upright


def _stored(record: Record) -> tuple[tuple[int, int], int] | DamagedImage:
    return record.stored or looked_at(record.path)


def looked_at(path: Path) -> tuple[tuple[int, int], int] | DamagedImage:
    """Return an image's size as it is stored and its EXIF orientation, or what is wrong with it."""
    try:
        return stored_size(path)
    except DamagedImage as error:
        return error


def _annotated(
    record: Record, objects: Iterable[Annotation], label: dict[str, int], notes: list[str]
) -> AnnotatedImage:
    """Return an image with those objects that have a part on it; what is wrong with the others is noted.

    Args:
        label: number of each class.
        notes: receives a sentence for each object that is dropped or cut.
    """
    assert record.size is not None
    width, height = record.size
    kept: list[tuple[list[float], Annotation]] = []
    for item in objects:
        x1, y1, x2, y2 = item.corners
        what = f"{record.where}: the box of a {item.name} ({x1:g}, {y1:g}, {x2:g}, {y2:g})"
        if not all(map(math.isfinite, item.corners)):
            notes.append(f"{what} is not of four finite numbers; it was left out")
            continue
        if x2 < x1 or y2 < y1:
            notes.append(f"{what} has its corners swapped; it was left out")
            continue
        inside = [min(max(x, 0), side) for x, side in zip(item.corners, (width, height) * 2, strict=True)]
        stored = array("f", inside)  # as they will be: float32
        if x2 == x1 or y2 == y1:
            notes.append(f"{what} has no area; it was left out")
        elif inside[2] <= inside[0] or inside[3] <= inside[1]:
            notes.append(f"{what} is outside the image of {width} x {height}; it was left out")
        elif max(inside[2:]) <= 1 and not record.stored:
            notes.append(
                f"{what} lies in the image's first pixel: its coordinates look like fractions of the image's "
                "sides; write pixels; it was left out"
            )
        elif min(stored[2] - stored[0], stored[3] - stored[1]) < LEAST_SIDE:
            notes.append(
                f"{what} is less than 1/64 of a pixel wide or high on the image of {width} x {height}; it "
                "was left out"
            )
        else:
            over = max(abs(a - b) for a, b in zip(inside, item.corners, strict=True))
            if over > TOLERANCE:
                notes.append(f"{what} reaches over the edge of the image of {width} x {height}; it was cut")
            kept.append((stored.tolist(), item))
    boxes = torch.tensor([box for box, _ in kept], dtype=torch.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    masks = [_mask(item, record.size, record.where, notes) for _, item in kept]
    areas = [
        float(side.prod()) if item.area is None else item.area
        for side, (_, item) in zip(sides, kept, strict=True)
    ]
    return AnnotatedImage(
        record.id,
        record.path,
        record.size,
        boxes,
        torch.tensor([label[item.name] for _, item in kept], dtype=torch.int64),
        torch.tensor([item.difficult for _, item in kept], dtype=torch.bool),
        torch.tensor([item.crowd for _, item in kept], dtype=torch.bool),
        torch.tensor(areas, dtype=torch.float32),
        record.number,
        tuple(sorted(label[name] for name in record.unjudged if name in label)),
        tuple(masks) if any(masks) else (),
    )


def _mask(item: Annotation, size: tuple[int, int], where: str, notes: list[str]) -> Mask | None:
    """Return an object's mask on an image of (width, height); None (and a note) where it is of no use."""
    if item.shape is None:
        return None
    try:
        found = as_mask(item.shape, *size)
        if not (item.crowd or fits(found, item.corners)):
            raise ValueError("it does not lie in the object's box")
    except ValueError as error:
        notes.append(f"{where}: the mask of a {item.name}: {error}; its box alone is used")
        return None
    return found


def _turned_mask(
    item: Annotation, stored: tuple[int, int], orientation: int, where: str, notes: list[str]
) -> Mask | None:
    """Return an object's mask, annotated on the image as it is stored, on the upright image."""
    found = _mask(item, stored, where, notes)
    return found and turned_mask(found, orientation)


def _check_some(images: Sequence[object], place: str, notes: list[str]) -> None:
    """Raise an InputError where no image is left."""
    if not images:
        raise InputError(f"{place} holds no image that can be used{_first(notes)}")


def _named(classes: Sequence[str]) -> str:
    """Return classes as a sentence names them."""
    more = f", ... ({len(classes):,} in all)" if len(classes) > SHOWN else ""
    return ", ".join(classes[:SHOWN]) + more


def _close(name: str, classes: Sequence[str]) -> str:
    plain = {known.casefold(): known for known in classes}
    close = get_close_matches(name.casefold(), plain, n=1)
    return f"; did you mean {plain[close[0]]}?" if close else ""


def _first(notes: list[str]) -> str:
    return f"; the first fault: {notes[0]}" if notes else ""
