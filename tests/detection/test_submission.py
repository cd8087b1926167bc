"""Result files hold what was measured, under names that a file may have."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from residual.data.boxes import AnnotatedImage, BoxDataset
from residual.data.coco import load_coco
from residual.detection.average_precision import Detections, coco_ap
from residual.detection.submission import submission_files, without_category
from residual.errors import InputError


def dataset(layout: str, classes: tuple[str, ...] = ("car/truck", "car:truck")) -> BoxDataset:
    random = torch.Generator().manual_seed(1)
    images = []
    for number in range(6):
        corners = torch.rand(4, 2, generator=random) * 50
        boxes = torch.cat([corners, corners + 8 + 30 * torch.rand(4, 2, generator=random)], dim=1)
        no = torch.zeros(4, dtype=torch.bool)
        labels = torch.randint(0, 2, (4,), generator=random)
        sides = boxes[:, 2:] - boxes[:, :2]
        images.append(
            AnnotatedImage(
                str(number), Path("x"), (100, 100), boxes, labels, no, no, sides.prod(dim=1), number
            )
        )
    return BoxDataset(layout, ("2012/val",), classes, tuple(images), (), (7, 9))  # type: ignore[arg-type]


def detections(data: BoxDataset) -> list[Detections]:
    random = torch.Generator().manual_seed(2)
    found = []
    for annotated in data.images:
        boxes = annotated.boxes.repeat(3, 1)
        boxes = boxes + torch.rand(boxes.shape, generator=random) * 4 - 2
        scores = torch.rand(len(boxes), generator=random).sort(descending=True).values
        found.append(Detections(boxes, scores, annotated.labels.repeat(3)))
    return found


def test_cocos_file_has_the_average_precision_that_was_measured() -> None:
    data = dataset("coco")
    found = detections(data)
    ((name, content),) = submission_files(data, found).items()
    assert name == "detections_2012/val_residual_results.json".replace("/", "_")
    read: dict[int, list[tuple[list[float], float, int]]] = {number: [] for number in range(6)}
    for item in json.loads(content):
        x, y, w, h = item["bbox"]
        read[item["image_id"]].append(
            ([x, y, x + w, y + h], item["score"], {7: 0, 9: 1}[item["category_id"]])
        )
    for number, each in enumerate(found):
        boxes, scores, labels = zip(*read[number], strict=True)
        assert torch.equal(torch.tensor(scores), each.scores)
        assert torch.tensor(boxes).allclose(each.boxes, rtol=0, atol=1e-5)
        assert list(labels) == each.labels.tolist()
    again = [
        Detections(torch.tensor([b for b, _, _ in rows]), torch.tensor([s for _, s, _ in rows]), each.labels)
        for rows, each in zip(read.values(), found, strict=True)
    ]
    assert coco_ap(data, again)["AP"] == coco_ap(data, found)["AP"]


def test_vocs_files_are_exact_and_their_names_are_safe() -> None:
    data = dataset("voc")
    found = detections(data)
    files = submission_files(data, found)
    assert list(files) == ["comp4_det_val_car_truck.txt", "comp4_det_val_car_truck-2.txt"]
    for label, content in enumerate(files.values()):
        rows = [line.split() for line in content.splitlines()]
        scores = torch.cat([each.scores[each.labels == label] for each in found])
        boxes = torch.cat([each.boxes[each.labels == label] for each in found])
        assert torch.equal(torch.tensor([float(row[1]) for row in rows]), scores)
        read = torch.tensor([[float(value) for value in row[2:]] for row in rows])
        # Pixels from 1, and the last one is inside.
        assert torch.equal(read, boxes + torch.tensor([1.0, 1, 0, 0]))


def test_imagenets_file_has_the_kits_numbers_and_counts_pixels_from_0() -> None:
    data = dataset("imagenet-det")
    numbered = tuple(replace(each, number=11 + place) for place, each in enumerate(data.images))
    data = replace(data, images=numbered)
    found = detections(data)
    ((name, content),) = submission_files(data, found).items()
    assert name == "detections_2012_val.txt"
    # val and test both count from 1.
    with pytest.raises(InputError, match="2 images of 2012/val have the id 11"):
        submission_files(replace(data, images=(numbered[0], *numbered[:5])), found)
    rows = [[float(word) for word in line.split()] for line in content.splitlines()]
    assert [row[0] for row in rows] == [11.0 + place for place in range(6) for _ in range(12)]
    assert [row[1] for row in rows] == [(7, 9)[label] for each in found for label in each.labels]
    assert torch.equal(torch.tensor([row[2] for row in rows]), torch.cat([each.scores for each in found]))
    # The last pixel is inside.
    boxes = torch.cat([each.boxes for each in found])
    assert torch.tensor([row[3:] for row in rows]).allclose(boxes - torch.tensor([0.0, 0, 1, 1]))


@pytest.mark.parametrize("as_text", [False, True])
def test_cocos_file_is_of_the_jsons_own_ids_and_categories(as_text: bool, tmp_path: Path) -> None:
    """Ids are numbers or text, as in the JSON; what it has no category for is left out, which is told."""
    from pycocotools.coco import COCO

    kind = str if as_text else int
    content = {
        "images": [{"id": kind(17), "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [
            {"id": 1, "image_id": kind(17), "category_id": kind(0), "bbox": [1, 2, 10, 20], "area": 200}
        ],
        "categories": [{"id": kind(0), "name": "cat"}],
    }
    file = tmp_path / "val.json"
    file.write_text(json.dumps(content))
    (tmp_path / "val").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "val" / "a.png")
    data = load_coco(tmp_path, ["val"], ("ant", "cat"))
    assert without_category(data) == ["ant"]
    boxes = torch.tensor([[1.0, 2, 11, 22], [0, 0, 5, 5]])
    found = Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([1, 0]))
    ((name, written),) = submission_files(data, [found]).items()
    (tmp_path / name).write_text(written)
    (item,) = json.loads(written)
    assert (item["image_id"], item["category_id"]) == (kind(17), kind(0))
    assert len(COCO(str(file)).loadRes(str(tmp_path / name)).anns) == 1


@pytest.mark.parametrize("name", ["cat", "cat.dog", "größe", "a b"])
def test_ordinary_names_are_kept(name: str) -> None:
    data = replace(dataset("voc"), classes=(name, "other"))
    assert list(submission_files(data, detections(data))) == [
        f"comp4_det_val_{name}.txt",
        "comp4_det_val_other.txt",
    ]
