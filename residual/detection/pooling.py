"""RoI pooling and RoI align of those cells of a region that are looked at.

A cell of a pooled region is the largest, or a weighted sum, of some positions of the map. With a map in
channels-last format as a table of its positions, (h*w, C), that is an embedding bag, which reads whole rows
of C numbers, in any precision. torchvision's kernels give the same numbers, of all cells, from maps of
float32 in channels-first format, which they read channel by channel: on a CPU that takes many times as long.

Shapes: R regions; C channels of a map of h x w positions; n x n cells of a region that are looked at.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.box_batches import ObjectMasks

#: RoI align looks at so many points of a cell in each direction.
POINTS = 2


def roi_pool(map: Tensor, boxes: Tensor, size: int, stride: int, step: int = 1) -> Tensor:
    """Return the largest number of each cell of regions, as ``torchvision.ops.roi_pool`` does.

    Args:
        map: (1, C, h, w), channels-last.
        boxes: (R, 4) in the network's input; x2 and y2 are the last pixel.
        size: cells of a region in each direction.
        stride: pixels of the input for one step on the map.
        step: only every step-th row and column of cells is computed.

    Returns:
        (R, C, n, n), channels-last, n the number of rows that are computed.
    """
    height, width = map.shape[2:]
    # The kernel rounds halves away from zero.
    corners = boxes / stride
    corners = (corners + corners.sign() / 2).trunc()
    top, bottom = _cells(corners[:, 1], corners[:, 3], height, size, step)
    left, right = _cells(corners[:, 0], corners[:, 2], width, size, step)
    n = top.shape[1]
    shape = len(boxes), n, n
    rows, columns = (bottom - top)[:, :, None].expand(shape), (right - left)[:, None].expand(shape)
    counts = (rows * columns).flatten()
    starts = counts.cumsum(0) - counts
    cell = torch.arange(len(counts), device=map.device).repeat_interleave(counts)
    place = torch.arange(len(cell), device=map.device) - starts[cell]
    across = columns.flatten()[cell]
    y = top[:, :, None].expand(shape).flatten()[cell] + place // across
    x = left[:, None].expand(shape).flatten()[cell] + place % across
    pooled = F.embedding_bag(y * width + x, _table(map), starts, mode="max")
    return _regions(pooled, shape, map)


def roi_align(map: Tensor, boxes: Tensor, size: int, stride: int, step: int = 1) -> Tensor:
    """Return the mean of four points of each cell, as ``torchvision.ops.roi_align`` does ("aligned").

    Arguments and result as of ``roi_pool``; x2 and y2 are the region's edges.
    """
    height, width = map.shape[2:]
    corners = boxes / stride - 0.5
    y, down = _points(corners[:, 1], corners[:, 3], height, size, step)
    x, across = _points(corners[:, 0], corners[:, 2], width, size, step)
    n = y.shape[1]
    places = (y[:, :, None, :, None] * width + x[:, None, :, None]).flatten(3).flatten(0, 2)
    weights = (down[:, :, None, :, None] * across[:, None, :, None]).flatten(3).flatten(0, 2)
    table = _table(map)
    pooled = F.embedding_bag(places, table, mode="sum", per_sample_weights=weights.to(table.dtype))
    return _regions(pooled, (len(boxes), n, n), map)


def align_masks(masks: ObjectMasks, objects: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Return what ``roi_align`` gives of masks, each region's of its own object: float32 (R, size, size).

    Args:
        masks: of an image.
        objects: which of them each region is of, int64 (R,).
        boxes: (R, 4) in the network's input.
    """
    corners = boxes * masks.scale.repeat(2) - masks.corners[objects].repeat(1, 2) - 0.5
    height, width = masks.sizes[objects].clamp(min=1)[:, :, None, None].unbind(dim=1)
    y, down = _points(corners[:, 1], corners[:, 3], height, size, 1)
    x, across = _points(corners[:, 0], corners[:, 2], width, size, 1)
    own = masks.starts[objects][:, None, None, None, None]
    places = own + y[:, :, None, :, None] * width[..., None, None] + x[:, None, :, None]
    weights = down[:, :, None, :, None] * across[:, None, :, None]
    return (masks.shares[places] * weights).sum(dim=(3, 4))


def _cells(first: Tensor, last: Tensor, length: int, size: int, step: int) -> tuple[Tensor, Tensor]:
    """Return where cells begin and end on the map in one direction, int64 (R, n) each.

    Args:
        first, last: positions of the regions (R,).
        length: of the map.
    """
    side = (last - first + 1).clamp(min=1)[:, None] / size
    number = torch.arange(0, size, step, device=first.device)
    begin = (number * side).floor() + first[:, None]
    end = ((number + 1) * side).ceil() + first[:, None]
    return begin.clamp(0, length).long(), end.clamp(0, length).long()


def _points(first: Tensor, last: Tensor, length: int | Tensor, size: int, step: int) -> tuple[Tensor, Tensor]:
    """Return what the cells' points are interpolated from in one direction: positions and weights, (R, n, 4).

    Args:
        first, last: edges of the regions on the map (R,), the middle of the first position at 0.
        length: of the map, or of each region's, (R, 1, 1).
    """
    side = (last - first)[:, None, None] / size
    number = torch.arange(0, size, step, device=first.device)[:, None]
    part = (torch.arange(POINTS, device=first.device) + 0.5) / POINTS
    point = first[:, None, None] + (number + part) * side
    # What lies further out than the neighbour of the last position counts as zero.
    inside = (point >= -1) & (point <= length)
    # Where a head's numbers overflow there are corners that are none, which have no position.
    point = point.clamp(min=0).clamp(max=length - 1).nan_to_num(0)
    low = point.floor()
    high = (low + 1).clamp(max=length - 1)
    weight = torch.stack([low + 1 - point, point - low], dim=-1) * inside[..., None] / POINTS
    return torch.stack([low, high], dim=-1).long().flatten(2), weight.flatten(2)


def _table(map: Tensor) -> Tensor:
    """Return a map as the rows of its positions, (h*w, C): no copy where it is channels-last.

    A position is a part of many cells of many regions: where the map learns, gradients add up in float32.
    """
    table = map[0].permute(1, 2, 0).flatten(0, 1)
    return table.float() if table.requires_grad else table


def _regions(pooled: Tensor, shape: tuple[int, int, int], map: Tensor) -> Tensor:
    """Return cells (R*n*n, C) as regions (R, C, n, n) in the map's precision, without moving them."""
    return pooled.to(map.dtype).unflatten(0, shape).permute(0, 3, 1, 2)
