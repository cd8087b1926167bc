"""Instance segmentation: masks of regions, learned, pasted, measured; and Mask R-CNN's own code beside it."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectors import NO_BOXES, small_detector, training_image
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, paste_masks_in_image
from torchvision.ops import roi_align as their_align

from residual.data.box_batches import ObjectMasks, TrainingImage
from residual.data.boxes import AnnotatedImage, BoxDataset
from residual.data.masks import encode, masks_as_pixels
from residual.detection.average_precision import Detections, coco_ap
from residual.detection.faster_rcnn import FasterRCNN
from residual.detection.inference import DetectionOptions, detect
from residual.detection.masks import MaskHead, mask_loss, paste
from residual.detection.pooling import align_masks
from residual.detection.submission import as_json, submission_files
from residual.detection.weights import take_over
from residual.errors import InputError

HOW = DetectionOptions(40, 60, score_threshold=0.01, max_detections=6)


def object_masks(shares: Tensor, *missing: int) -> ObjectMasks:
    """Masks (M, h, w) of an image of their size, but for some objects that have none."""
    count, height, width = shares.shape
    sizes = torch.tensor([[height, width]]).repeat(count, 1)
    sizes[list(missing)] = 0
    starts = torch.arange(count) * height * width
    flat = torch.cat([shares.flatten(), torch.zeros(1, dtype=torch.uint8)])
    return ObjectMasks(flat, starts, sizes, torch.zeros(count, 2), torch.ones(2))


def with_masks(image: TrainingImage, *missing: int) -> TrainingImage:
    """An image whose objects are the left halves of their boxes, but for some that have no mask."""
    masks = torch.zeros(len(image.boxes), *image.height_width, dtype=torch.uint8)
    for number, (x1, y1, x2, y2) in enumerate(image.boxes.int().tolist()):
        masks[number, y1:y2, x1 : (x1 + x2) // 2] = 255
    return replace(image, masks=object_masks(masks, *missing) if len(masks) else None)


def test_masks_under_regions_are_aligned_as_torchvision_does() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(3, 30, 41, generator=generator) * 255).to(torch.uint8)
    corners = torch.rand(7, 4, generator=generator) * torch.tensor([40.0, 30, 40, 30]) - 3
    boxes = torch.cat([corners.view(7, 2, 2).amin(1), corners.view(7, 2, 2).amax(1)], dim=1)
    objects = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    regions = torch.cat([objects[:, None].float(), boxes], dim=1)
    theirs = their_align(masks[:, None].float(), regions, 14, 1.0, sampling_ratio=2, aligned=True)[:, 0]
    aligned = align_masks(object_masks(masks), objects, boxes, 14)
    torch.testing.assert_close(aligned, theirs, rtol=1e-4, atol=1e-2)


def test_without_masks_nothing_changes() -> None:
    """The same numbers to begin with, and the same losses of boxes."""
    plain, masked = small_detector(), small_detector(masks=True)
    state = masked.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.state_dict().items())
    assert {name.split(".")[0] for name in state.keys() - plain.state_dict().keys()} == {"mask_head"}
    images = [training_image(1), training_image(4, objects=2), training_image(3, objects=0)]
    losses = masked.train()([with_masks(image) for image in images])
    assert torch.equal(losses[:4], plain.train()(images))
    assert losses.shape == (5,)
    assert plain.losses == ("rpn_class", "rpn_box", "roi_class", "roi_box")
    assert masked.losses == (*plain.losses, "mask")
    pixels = [image.image for image in images]
    for one, other in zip(
        detect([plain.eval()], pixels, HOW), detect([masked.eval()], pixels, HOW), strict=True
    ):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)
        assert one.masks == ()
        assert len(other.masks) == len(other) > 0


def test_an_image_learns_its_masks_alone_as_among_others() -> None:
    model = small_detector(masks=True).train()
    images = [with_masks(training_image(1)), training_image(2), training_image(3, objects=0)]
    images += [with_masks(training_image(4, objects=2), 1), with_masks(training_image(5, objects=2))]
    together = model(images)
    alone = torch.stack([model([image]) for image in images])
    assert torch.allclose(together, alone.sum(dim=0), rtol=1e-5)
    # Images without a mask have no such loss, but all layers take part in each.
    assert (alone[:, 4] > 0).tolist() == [True, False, False, True, True]
    model([images[1]]).sum().backward()
    assert model.mask_head is not None
    assert all(p.grad is not None and not p.grad.any() for p in model.mask_head.parameters())


def test_objects_without_a_mask_are_not_learned_as_empty_ones() -> None:
    model = small_detector(masks=True).train()
    image = training_image(4, objects=2)
    both, first, second = (with_masks(image, *missing) for missing in ((), (1,), (0,)))
    of_both, of_first, of_second = (float(model([each])[4].detach()) for each in (both, first, second))
    # The mean over the regions of both objects lies between the means over those of each.
    assert min(of_first, of_second) < of_both < max(of_first, of_second)


def test_a_place_of_a_mask_is_the_objects_where_half_of_it_is() -> None:
    """Every logit is 1: the loss tells how many targets are ones, the left 7 columns of 14 pixels here."""
    model = small_detector(masks=True).train()
    assert model.mask_head is not None
    nn.init.zeros_(model.mask_head.mask_fcn_logits.weight)
    nn.init.ones_(model.mask_head.mask_fcn_logits.bias)  # type: ignore[arg-type]
    image = with_masks(replace(training_image(1), boxes=torch.tensor([[4.0, 6, 18, 20]])))
    losses = model.roi_losses([image], model.training_maps([image]), [NO_BOXES])
    assert float(losses[2].detach()) == pytest.approx(math.log1p(math.e) - 0.5, rel=1e-5)


def test_the_loss_is_of_the_own_classs_mask_alone() -> None:
    """Mask R-CNN, Section 3: the mean binary cross-entropy of one of K masks, and 0 of the others."""
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 3, 14, 14, requires_grad=True), torch.tensor([0, 2, 1, 1, 0])
    targets = torch.rand(5, 14, 14) < 0.4
    losses = mask_loss(logits, labels, targets)
    for number, label in enumerate(labels.tolist()):
        own = logits[number, label].sigmoid()
        expected = -torch.where(targets[number], own, 1 - own).log().mean()
        torch.testing.assert_close(losses[number], expected)
    losses.sum().backward()
    assert logits.grad is not None
    learned = {(n, k) for n, k in logits.grad.flatten(2).any(dim=2).nonzero().tolist()}
    assert learned == set(enumerate(labels.tolist()))


class TheirHead(nn.Module):
    """Our layers for a region, as torchvision's heads take them: from pooled cells to a map."""

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, cells: Tensor) -> Tensor:
        return self.model.head_maps(self.model.enter(cells))


class TheirPooling(nn.Module):
    """Our pooling, as torchvision's heads ask for it: the images' regions one after the other."""

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> Tensor:
        cells = [self.model.pool_cells(map[None], box) for map, box in zip(maps["0"], boxes, strict=True)]
        return torch.cat(cells)


def test_the_same_weights_give_mask_r_cnns_masks() -> None:
    """torchvision's RoIHeads with its mask predictor, around the same network: to 1e-4."""
    model = small_detector(masks=True, pooling="align").eval()
    assert model.mask_head is not None
    predictor = MaskRCNNPredictor(model.backbone.width, 256, 1 + model.classes)
    state = model.mask_head.state_dict()
    # Their first class is the background, whose mask nobody reads.
    for name, shape in (("mask_fcn_logits.weight", (1, 256, 1, 1)), ("mask_fcn_logits.bias", (1,))):
        state[name] = torch.cat([torch.zeros(shape), state[name]])
    predictor.load_state_dict(state)

    class Boxes(nn.Module):
        """Their box branch: a description, then scores and outputs for each class, background first."""

        def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
            scores, outputs = model.predict(maps.mean(dim=(2, 3)))
            return scores, torch.cat([torch.zeros(len(maps), 1, 4), outputs], dim=1).flatten(1)

    heads = RoIHeads(
        TheirPooling(model),
        TheirHead(model),
        Boxes(),
        *(0.5, 0.5, 512, 0.25, (10.0, 10.0, 5.0, 5.0)),
        *(HOW.score_threshold, HOW.nms_threshold, HOW.max_detections),
        mask_roi_pool=TheirPooling(model),
        mask_head=TheirHead(model),
        mask_predictor=predictor,
    ).eval()
    images = [training_image(number).image for number in range(2)]
    size = (40, 48)
    with torch.no_grad():
        maps = model.maps([model.preprocessing(image[None])[0] for image in images])
        proposals = model.run_rpn(maps, [size] * 2).proposals
        theirs, _ = heads({"0": torch.cat(maps)}, proposals, [size] * 2)
        ours = detect([model], images, replace(HOW, shorter_side=40, longer_side=48))
        assert sum(map(len, ours)) > 4
        for number, (found, their) in enumerate(zip(ours, theirs, strict=True)):
            torch.testing.assert_close(found.boxes, their["boxes"], rtol=1e-4, atol=1e-3)
            assert torch.equal(found.labels + 1, their["labels"])
            pooled = model.pool(model.region_maps(maps[number]), found.boxes)
            squares = model.predict_masks([pooled])[torch.arange(len(found)), found.labels].sigmoid()
            torch.testing.assert_close(squares, their["masks"][:, 0], rtol=1e-4, atol=1e-4)


def drawn(kind: str, side: int) -> Tensor:
    """A disc, a square or a triangle of some side at (10, 8), on an image of 240 x 200."""
    y, x = torch.meshgrid(torch.arange(200) + 0.5 - 8, torch.arange(240) + 0.5 - 10, indexing="ij")
    inside = (x > 0) & (y > 0) & (x < side) & (y < side)
    if kind == "disc":
        inside &= (x - side / 2) ** 2 + (y - side / 2) ** 2 < side**2 / 4
    elif kind == "triangle":
        inside &= (x - side / 2).abs() < y / 2
    return inside[None].to(torch.uint8)


@pytest.mark.parametrize("side", [12, 24, 40, 100, 180])
@pytest.mark.parametrize(("kind", "least"), [("square", 0.99), ("disc", 0.94), ("triangle", 0.93)])
def test_a_learned_square_of_14_pasted_is_the_object_again(kind: str, least: float, side: int) -> None:
    pixels = drawn(kind, side)
    box = torch.tensor([[10.0, 8, 10 + side, 8 + side]])
    target = align_masks(object_masks(255 * pixels), torch.tensor([0]), box, 14) >= 127.5
    (mask,) = paste(target.float(), box, (200, 240))
    again = masks_as_pixels([mask], (200, 240))
    assert float((again & pixels).sum() / (again | pixels).sum()) > least
    # torchvision's boxes end with a pixel that belongs to them.
    theirs = (
        paste_masks_in_image(target[None].float(), box - torch.tensor([0.0, 0, 1, 1]), (200, 240))[0] > 0.5
    )
    assert float((again & theirs).sum() / (again | theirs).sum()) > (0.95 if side >= 100 else 0.7)


def test_masks_at_the_images_edges_and_of_less_than_a_pixel() -> None:
    boxes = torch.tensor([[0.0, 0, 48, 40], [47.2, 39.3, 47.4, 39.4], [40.5, 30.5, 48, 40]])
    whole, tiny, corner = masks_as_pixels(paste(torch.ones(3, 14, 14), boxes, (40, 48)), (40, 48))
    # At the corners it is between the square and nothing on both sides.
    assert whole.sum() >= 48 * 40 - 4 * 3
    assert whole[0].sum() >= 48 - 4
    assert tiny.sum() <= 1
    assert corner.sum() == corner[30:, 40:].sum() > 60


def test_several_members_and_looks_give_masks() -> None:
    one = small_detector(masks=True).eval()
    images = [training_image(1).image, training_image(2, 48, 40).image]
    alone = detect([one], images, HOW)
    assert detect([one, one], images, HOW)[0].masks == alone[0].masks
    other = small_detector(masks=True, roi_size=4).eval()
    other.load_state_dict(one.state_dict())
    for how in (replace(HOW, refine=True), replace(HOW, scales=(32, 48)), HOW):
        for found, image in zip(detect([one, other], images, how), images, strict=True):
            assert found.pixels((image.shape[1], image.shape[2])).shape == (len(found), *image.shape[1:])
    for found, turned in zip(
        detect([one, other], images, HOW), detect([other, one], images, HOW), strict=True
    ):
        assert len(found)
        assert found.masks == turned.masks, "whoever is named first"
    nothing = detect([one], images, replace(HOW, score_threshold=0.999))
    assert [(len(each), each.masks) for each in nothing] == [(0, ())] * 2


def test_vgg_has_no_map_to_draw_masks_on() -> None:
    with pytest.raises(InputError, match="VGG's head has no map"), torch.device("meta"):
        small_detector("vgg16", masks=True)


def test_a_mask_head_starts_anew_where_there_is_none_to_go_on_from() -> None:
    masked, plain = small_detector(masks=True), small_detector()
    with torch.no_grad():
        for parameter in (*masked.parameters(), *plain.parameters()):
            parameter.add_(1)
    for start, same in ((masked, True), (plain, True), (masked, False)):
        again = small_detector(masks=True)
        before = {name: tensor.clone() for name, tensor in again.state_dict().items()}
        take_over(again, start.state_dict(), same)
        known = start is masked and same
        for name, tensor in again.state_dict().items():
            anew = name.startswith("mask_head") and not known
            anew |= not same and name.startswith(("cls_score", "bbox_pred"))
            assert torch.equal(tensor, before[name] if anew else start.state_dict()[name]), name
    take_over(plain, masked.state_dict(), True)


def dataset(*masks: Tensor | None) -> BoxDataset:
    """An image of 60 x 50 with objects of one class at the left and at the right."""
    boxes = torch.tensor([[0.0, 0, 20, 40], [30, 10, 60, 50]])[: len(masks)]
    none = torch.zeros(len(masks), dtype=torch.bool)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    encoded = tuple(None if mask is None else encode(mask.numpy()) for mask in masks)
    image = AnnotatedImage("1", Path("1.png"), (60, 50), boxes, none.long(), none, none, areas, masks=encoded)
    return BoxDataset("coco", ("val",), ("thing",), (image,), (), (1,))


def pixels_of(*box: int) -> Tensor:
    x1, y1, x2, y2 = box
    mask = torch.zeros(50, 60, dtype=torch.bool)
    mask[y1:y2, x1:x2] = True
    return mask


LEFT, RIGHT = pixels_of(0, 0, 10, 40), pixels_of(30, 10, 60, 30)


def found_with(*masks: Tensor) -> Detections:
    boxes = torch.tensor([[0.0, 0, 20, 40], [30, 10, 60, 50]])[: len(masks)]
    scores, labels = torch.tensor([0.9, 0.8])[: len(masks)], torch.zeros(len(masks), dtype=torch.int64)
    return Detections(boxes, scores, labels, tuple(encode(mask.numpy()) for mask in masks))


def test_precision_of_masks_is_of_their_pixels() -> None:
    data = dataset(LEFT, RIGHT)
    perfect = found_with(LEFT, RIGHT)
    assert coco_ap(data, [perfect], masks=True)["AP"] == pytest.approx(1)
    # Right boxes with wrong masks: the second covers half of its object, enough for AP50 alone.
    half = found_with(LEFT, pixels_of(30, 10, 60, 20))
    assert coco_ap(data, [half])["AP"] == pytest.approx(1)
    measured = coco_ap(data, [half], masks=True)
    assert (measured["AP50"], measured["AP75"]) == (pytest.approx(1), pytest.approx(0.5, abs=0.01))
    # COCO says how large its objects are; of others' masks it is their pixels: 600 of 30 x 40 are small.
    for layout, medium in (("coco", [1.0]), ("voc", [])):
        sizes = coco_ap(replace(data, layout=layout), [perfect], masks=True)
        assert [sizes[key] for key in ("APm", "APl") if not math.isnan(sizes[key])] == pytest.approx(medium)
    wrong = coco_ap(data, [found_with(pixels_of(11, 0, 20, 40), pixels_of(30, 31, 60, 50))], masks=True)
    assert wrong["AP50"] == 0


def test_objects_without_a_mask_are_neither_asked_for_nor_a_mistake() -> None:
    data = dataset(LEFT, None)
    assert coco_ap(data, [found_with(LEFT, RIGHT)], masks=True)["AP"] == pytest.approx(1)
    assert coco_ap(data, [found_with(LEFT)], masks=True)["AP"] == pytest.approx(1)


def test_what_lies_in_a_crowds_mask_is_no_mistake() -> None:
    data = dataset(LEFT, RIGHT)
    (image,) = data.images
    crowd = replace(data, images=(replace(image, crowd=torch.tensor([False, True])),))
    in_it = found_with(LEFT, pixels_of(32, 12, 40, 20))
    assert coco_ap(crowd, [in_it], masks=True)["AP"] == pytest.approx(1)
    assert coco_ap(data, [in_it], masks=True)["AP"] < 0.6


def test_an_image_that_says_to_be_larger_than_any_is_measured() -> None:
    """It cannot be read, so nothing is found there; an object without a mask is not drawn at that size."""
    data = dataset(LEFT)
    (image,) = data.images
    vast = replace(image, id="2", size=(10**9, 10**9), masks=())
    both = replace(data, images=(image, vast))
    assert coco_ap(both, [found_with(LEFT), found_with(LEFT)[torch.tensor([False])]], masks=True)[
        "AP"
    ] == pytest.approx(1)


def test_detections_are_chosen_with_their_masks() -> None:
    found = found_with(LEFT, RIGHT)
    kept = found[torch.tensor([False, True])]
    assert kept.masks == found.masks[1:]
    turned = found[torch.tensor([1, 0])]
    assert turned.masks == found.masks[::-1]
    assert torch.equal(turned.boxes, found.boxes.flip(0))
    assert replace(found, labels=torch.tensor([1, 0])).of_classes([0]).masks == found.masks[1:]
    assert found.cpu().masks == found.masks
    assert found.pixels((50, 60)).shape == (2, 50, 60)
    with pytest.raises(InputError, match=r"height and width of \(50, 60\), not \(60, 50\)"):
        found.pixels((60, 50))
    with pytest.raises(InputError, match="these detections have no masks"):
        replace(found, masks=()).pixels((50, 60))


def test_masks_in_result_files_are_cocos() -> None:
    data, found = dataset(LEFT, RIGHT), found_with(LEFT, RIGHT)
    files = submission_files(data, [found])
    assert set(files) == {"detections_val_residual_results.json", "segmentations_val_residual_results.json"}
    rows = json.loads(files["segmentations_val_residual_results.json"])
    assert [set(row) for row in rows] == [{"image_id", "category_id", "score", "segmentation"}] * 2
    (row, _) = as_json(found, data.classes)
    for written in (rows[0]["segmentation"], row["mask"]):
        assert written["size"] == [50, 60]
        assert written["counts"].encode() == found.masks[0].counts
    assert set(submission_files(data, [replace(found, masks=())])) == {"detections_val_residual_results.json"}


def test_the_heads_layers_double_the_side() -> None:
    head = MaskHead(8, 3)
    assert head(torch.zeros(2, 8, 7, 7)).shape == (2, 3, 14, 14)
