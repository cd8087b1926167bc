"""What a run of a detector has of its own."""

import math
import sys
from pathlib import Path
from typing import Any

import torch

from ..class_names import Form
from ..data.box_batches import BoxBatches
from ..data.boxes import BoxDataset, divide, misspelt
from ..data.imagenet_det import has_own_halves
from ..data.masks import check_pycocotools
from ..detection.alternating import AlternatingRCNN
from ..detection.anchors import advice, anchor_fits, fit_table, objects_of
from ..detection.average_precision import coco_ap, mean_ap, voc_ap
from ..detection.backbones import make_backbone, measure_batch_norm
from ..detection.boxes import load_boxes
from ..detection.faster_rcnn import FasterRCNN
from ..detection.inference import DetectionOptions, input_size
from ..detection.testing import detect_dataset, load_detections, save_detections
from ..detection.training import detection_work
from ..detection.weights import build_detector, is_detector, read_detector, save_detector, take_over
from ..device import open_device
from ..distributed import World
from ..errors import InputError, OtherData, plural
from ..models import build_model
from ..models.classifier import Classifier
from ..models.foreign import IMAGENET_MEAN
from ..models.frozen import freeze_batch_norm
from ..models.inference import fold_batchnorm
from ..models.layout import MODEL_FILE
from ..models.preprocessing import Preprocessing
from ..randomness import Stream, mix
from ..recipes import DetectionRecipe
from ..recipes.schema import Schedule
from ..terminal import note
from ..training.folder import RunFolder
from ..training.loop import Run, Work
from .box_findings import detector_findings
from .start import check_network, trained_network
from .task import Task, check_classes, check_shared, identities

#: How a run on ImageNet DET may depart from the paper's.
OWN_HALVES = "val1 and val2 are halves of ours, as R-CNN's lists of them are not in ImageSets/DET"
#: Images over which BN statistics are averaged for a network that starts from scratch.
MEASURED = 64


class DetectionTask(Task):
    """A recipe's detector on its data; see ``Task``."""

    recipe: DetectionRecipe
    command = ("residual", "detect", "train")
    one_size = False

    def __init__(self, recipe: DetectionRecipe, data_dir: Path | None, world: World) -> None:
        check_shared(recipe.batch.size, world)
        if data_dir is None:
            raise InputError("name the folder of the annotated images with --data-dir")
        self.recipe = recipe
        self.world = world
        self.data_dir = data_dir
        data = recipe.data
        masks = recipe.detector.masks
        if masks:
            check_pycocotools("masks")
        self.train = load_boxes(data_dir, data, data.train, data.classes or None, masks=masks)
        #: What the curve is about, None for nothing.
        self.held_out: BoxDataset | None = None
        if data.validation:
            self.train, self.held_out = divide(self.train, data.validation, data.split_seed)
        self.split = "validation" if data.validation else "test"
        self._check_classes()
        self.notes = list(self.train.notes)
        if data.test and not data.validation:
            self.held_out = self._load_test(self.train.classes)
            self.notes += self.held_out.notes
        self.images = len(self.train)
        self.mends = data.damaged == "fatal"
        self.departures: list[str] = []
        if data.layout == "imagenet-det" and has_own_halves(data_dir, (*data.train, *data.test)):
            self.departures.append(OWN_HALVES)
        self._skipped: dict[str, str] = {}

    def _load_test(self, classes: tuple[str, ...]) -> BoxDataset:
        data, masks = self.recipe.data, self.recipe.detector.masks
        return load_boxes(self.data_dir, data, data.test, classes, masks=masks)

    def _check_classes(self) -> None:
        """Raise an InputError where there is nothing to learn, of a class that is asked for or at all."""
        first = f"; the first note on the annotations: {self.train.notes[0]}" if self.train.notes else ""
        splits = ", ".join(self.train.splits)
        counts = dict(zip(self.train.classes, self.train.counts(), strict=True))
        if not any(counts.values()):
            raise InputError(f"there is no object to learn in {splits}{first}")
        for name in self.recipe.data.classes:
            if not counts[name]:
                raise InputError(f"data.classes: no object of {splits} is a {name!r}{first}")
        if self.recipe.detector.masks and not self.train.has_masks:
            where = {
                "voc": "images of instances in SegmentationObject",
                "coco": "segmentations in the JSON",
                "yolo": "polygons in the labels",
            }
            ends = ("alone is used", "they are left out")
            told = (note for note in self.train.notes if note.endswith(ends))
            fault = next((f"; the first fault: {note}" for note in told), first)
            raise InputError(
                f"no object of {splits} has a mask; add {where[self.recipe.data.layout]}, or learn boxes "
                f"alone with --set detector.masks=false{fault}"
            )

    def fingerprint(self, form: Form = "NFC") -> dict[str, Any]:
        # The images held out decide nothing of what is learned, but the curve is about them.
        splits = [split for split in (self.train, self.held_out) if split is not None]
        return self.train.fingerprint() | identities(splits, form)

    def start(self, begun: RunFolder | None = None) -> None:
        recipe, classes = self.recipe, len(self.train.classes)
        torch.manual_seed(mix(recipe.seed, Stream.WEIGHTS))
        network = recipe.detector.backbone
        if network.name == "weights":
            raise InputError(
                f"{recipe.name} starts from trained weights; name them with --weights, or learn all from the "
                "beginning with --set detector.backbone.name=resnet18 --set detector.freeze=0"
            )
        if recipe.detector.freeze and not network.weights and not begun:
            raise InputError(
                f"{recipe.name}: detector.freeze keeps what weights have learned; name some with --weights, "
                "or train all layers from scratch with --set detector.freeze=0"
            )
        # Those of the recipe, with which weights that are named agree: a resumed run has no others.
        self.options = network.options()
        if network.weights and begun:
            # The checkpoint has every number, those of the preprocessing too.
            classifier = build_model(network.name, **self.options)
            self.detector = self._detector(classifier, Preprocessing(torch.zeros(3)))
            self.started_from = begun.started_from()
        elif network.weights and is_detector(Path(network.weights)):
            stored = read_detector(Path(network.weights))
            check_network(network, stored.config.detector["backbone"]["name"], stored.config.options)
            same = stored.classes == self.train.classes
            self.detector = build_detector(
                recipe.detector, stored.model.backbone, classes, stored.model.preprocessing
            )
            take_over(self.detector, stored.model.state_dict(), same)
            but = (
                ""
                if same
                else f" but its last layers, replaced by new ones for {plural(classes, 'class', 'classes')}"
            )
            self.started_from = f"the detector {network.weights}{but}"
        else:
            classifier, preprocessing, self.started_from = self._classifier()
            self.detector = self._detector(classifier, preprocessing)
        self.model = self.detector
        self._tell_fit()

    def _tell_fit(self) -> None:
        """Say before training which classes there are, and which the detector will hardly find."""
        detector, data, stride = self.recipe.detector, self.recipe.data, self.detector.backbone.stride
        objects = objects_of(self.train, data, stride)
        fits = anchor_fits(objects, detector)
        if self.world.is_main:
            fit_table(fits, detector).print(stderr=True)
            told = [
                self._tested_too(),
                self._without_masks(),
                *misspelt(self.train),
                advice(fits, self.train, objects, detector, data, not self._from_detector),
            ]
            note(*filter(None, told))

    @property
    def _from_detector(self) -> bool:
        return (self.started_from or "").startswith("the detector ")

    def _tested_too(self) -> str:
        """Say how many images are learned from and tested on, "" for none."""
        tested = {annotated.path for annotated in self.held_out.images} if self.held_out else set()
        both = sum(annotated.path in tested for annotated in self.train.images)
        if not both:
            return ""
        return (
            f"{both:,} of {len(tested):,} images to test on are learned from as well, so the precision says "
            "little of other images"
        )

    def _without_masks(self) -> str:
        """Say how many objects teach no mask, "" for none or where masks are not learned."""
        wanted, masked = sum(self.train.counts()), sum(self.train.mask_counts())
        if not self.recipe.detector.masks or masked == wanted:
            return ""
        return f"{wanted - masked:,} of {wanted:,} objects to learn have no mask, and teach their boxes alone"

    def _detector(self, classifier: Classifier, preprocessing: Preprocessing) -> FasterRCNN:
        backbone = make_backbone(classifier)
        freeze_batch_norm(backbone)
        return build_detector(self.recipe.detector, backbone, len(self.train.classes), preprocessing)

    def record(self, folder: RunFolder) -> None:
        """Which images are in which split is said by the dataset's own lists, but where we divided it."""
        if parts := self._divided():
            folder.write_split(parts)

    def place(self, device: torch.device, schedule: Schedule, eager: bool) -> Work:
        self.detector = self.detector.to(device).to(memory_format=torch.channels_last)
        alternating = self.recipe.training == "alternating"
        model = AlternatingRCNN(self.detector) if alternating else self.detector
        batches = self._batches(self.detector.backbone.stride, self.world)
        self.model, self.batches = model, batches
        lasting = self.recipe.model_copy(update={"schedule": schedule})
        return detection_work(model, batches, lasting, self.world, device)

    def evaluate(self) -> dict[str, Any]:
        """Return what a log line says of an evaluation: VOC's mean average precision, in percent.

        Of a detector with masks COCO's of boxes and masks as well.
        """
        if self.held_out is None:
            return {"ap50": None, "images": 0}
        data = self.recipe.data
        if self.world.is_main:
            print(f"{self.recipe.name}: testing on {plural(len(self.held_out), 'image')}", file=sys.stderr)
        most = self.recipe.detector.max_detections
        options = DetectionOptions(data.shorter_side, data.longer_side, max_detections=most)
        with self.showing("images", len(self.held_out)) as show:
            found = detect_dataset(
                [fold_batchnorm(self.detector)],
                self.held_out,
                options,
                self.world,
                damaged=data.damaged,
                progress=show,
            )
        self._skipped |= found.unusable
        #: Those of the newest evaluation: after the last iteration the final ones.
        self._found = found.detections
        classes = voc_ap(self.held_out, found.detections, data.ap_rule)
        measured = {
            "ap50": 100 * mean_ap(classes) if any(c.objects for c in classes) else None,
            "classes": {c.name: 100 * c.average_precision if c.objects else None for c in classes},
            "images": len(self.held_out),
            "images_per_second": found.images_per_second,
        }
        if self.held_out.has_masks:
            for name, masks in (("coco_box", False), ("coco_mask", True)):
                ap = coco_ap(self.held_out, found.detections, masks)
                measured[name] = {
                    key: None if math.isnan(ap[key]) else 100 * ap[key] for key in ("AP", "AP50")
                }
        return measured

    def results(self, run: Run) -> dict[str, Any]:
        return {
            "parameters": sum(p.numel() for p in self.detector.parameters()),
            "classes": dict(zip(self.train.classes, self.train.counts(), strict=True)),
            "train_images": len(self.train),
            "validation": None,
            "test": None,
            self.split: run.last,
            # As the log has it, but for the rounding of what is left to 100 %.
            "best_validation_ap50": None if run.progress.best is None else round(100 - run.progress.best, 10),
            "left_out": len(self.notes),
        }

    def unreadable(self) -> dict[str, str]:
        return {
            f"{split}/{id}": reason
            for split, found in (("train", self.batches.unreadable), (self.split, self._skipped))
            for id, reason in found.items()
        }

    def keep(self, folder: RunFolder) -> None:
        if self.held_out is not None:
            save_detections(folder.detections_file, self.held_out, self._found)

    def findings(self, folder: RunFolder, device: str) -> dict[str, Any] | None:
        rule = self.recipe.data.ap_rule
        if self.held_out is None:
            return None
        # Of images that are more now others are held out, and they were learned.
        parts, noted = self._divided(), folder.held_out()
        if parts and noted not in (None, tuple(image for image, _ in parts["validation"])):
            raise OtherData(f"{folder.split_file} is of other images than there are now; put them back")
        complete = folder.results_file.exists()
        if complete and folder.detections_file.exists():
            tested = self._tested_by(tuple(folder.results(self.recipe)["classes"]), self.held_out, folder)
            return detector_findings(tested, load_detections(folder.detections_file, tested), rule)
        if not is_detector(folder.weights) or not (folder.weights / MODEL_FILE).exists():
            return None
        stored = read_detector(folder.weights)
        self.held_out = self._tested_by(stored.classes, self.held_out, folder)
        self.detector = stored.model.to(open_device(device)).to(memory_format=torch.channels_last)
        self.evaluate()
        if complete:
            self.keep(folder)
        return detector_findings(self.held_out, self._found, rule)

    def _divided(self) -> dict[str, list[tuple[str, str]]]:
        """Return the images of each split that this recipe made, and their classes; {} where it made none."""
        if not self.recipe.data.validation:
            return {}
        assert self.held_out is not None
        return {"train": self.train.listed(self.data_dir), "validation": self.held_out.listed(self.data_dir)}

    def _tested_by(self, classes: tuple[str, ...], today: BoxDataset, folder: RunFolder) -> BoxDataset:
        """Return the images held out by the classes of trained weights; the training split may have others.

        Args:
            today: the same by the training split's classes.
        """
        if self.recipe.data.validation:
            check_classes(classes, today.classes, folder.path, today.name)
        try:
            return today if today.classes == classes else self._load_test(classes)
        except InputError as error:
            raise OtherData(str(error)) from None

    def save(self, folder: Path, results: dict[str, Any]) -> None:
        data = self.recipe.data
        save_detector(
            folder,
            self.detector,
            detector=self.recipe.detector,
            options=self.options,
            classes=self.train.classes,
            categories=self.train.categories,
            sides=(data.shorter_side, data.longer_side),
            recipe=self.recipe.model_dump(mode="json"),
            results=results,
        )

    def _classifier(self) -> tuple[Classifier, Preprocessing, str | None]:
        """Return the network that the detector is made from, its preprocessing, and what it is."""
        wanted = self.recipe.detector.backbone
        if wanted.weights:
            stored = trained_network(wanted, channels=3)
            mean = stored.preprocessing.mean
            # A mean image fits one size only; its channels' means fit all.
            preprocessing = Preprocessing(mean.mean(dim=(1, 2)), stored.preprocessing.std.flatten())
            return stored.model, preprocessing, f"the classifier {wanted.weights}"
        network = build_model(wanted.name, **self.options)
        # A network from scratch has no mean of its own.
        preprocessing = Preprocessing(torch.tensor(IMAGENET_MEAN))
        # All ranks measure the same images, so that they start from the same network.
        batches = self._batches(stride=1, world=World())
        count = -(-min(MEASURED, len(self.train)) // self.recipe.batch.size)
        images = (image.image for number in range(count) for image in batches(number))
        measure_batch_norm(network, (preprocessing(image[None]) for image in images))
        batches.close()
        return network, preprocessing, None

    def _batches(self, stride: int, world: World) -> BoxBatches:
        data, recipe = self.recipe.data, self.recipe

        def size(width: int, height: int, *, scale: float) -> tuple[int, int]:
            sides = round(scale * data.shorter_side), round(scale * data.longer_side)
            try:
                return input_size(width, height, *sides, stride)
            except InputError:
                # So long an image is too long at a smaller scale.
                return input_size(width, height, data.shorter_side, data.longer_side, stride)

        return BoxBatches(
            self.train,
            size,
            recipe.batch.size,
            data.flip,
            recipe.seed,
            world.rank,
            world.size,
            data.damaged,
            data.scale_range,
        )
