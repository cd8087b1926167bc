"""What regions learn: matching and sampling."""

import pytest
import torch

from residual.detection.targets import match_anchors, match_regions, sample

NO_BOXES = torch.empty(0, 4)


def test_which_anchors_are_objects() -> None:
    anchors = torch.tensor(
        [
            [0.0, 0, 10, 10],  # an overlap of 1
            [0, 0, 10, 7.1],  # 0.71
            [0, 0, 10, 5],  # 0.5: neither
            [20, 20, 30, 30],  # 0
            [-5, 0, 10, 10],  # over the edge
            [40, 40, 50, 60],  # the best of the second object, though only 0.5
            [0, 0, 10, 6.9],  # 0.69: neither
            [0, 0, 10, 3.1],  # 0.31: neither
            [0, 0, 10, 2.9],  # 0.29
        ]
    )
    boxes = torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50]])
    objects, background, matched = match_anchors(anchors, boxes, NO_BOXES, (100, 100))
    assert objects.tolist() == [True, True, False, False, False, True, False, False, False]
    assert background.tolist() == [False, False, False, True, False, False, False, False, True]
    assert matched[objects].tolist() == [0, 0, 1]
    # Over the edge, where that is allowed: 100 of 150.
    objects, background, _ = match_anchors(anchors, boxes, NO_BOXES, None)
    assert not objects[4]
    assert not background[4]
    # An image without objects is background, but for what lies in a crowd.
    crowds = torch.tensor([[20.0, 20, 27.1, 30], [40, 40, 50, 53.8]])
    objects, background, _ = match_anchors(anchors, NO_BOXES, crowds, (100, 100))
    assert not objects.any()
    # 0.71 of the fourth anchor is in the first crowd, 0.69 of the sixth in the second one.
    assert background.tolist() == [True, True, True, False, False, True, True, True, True]


def test_which_regions_are_objects() -> None:
    regions = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.9]])
    objects, background, matched = match_regions(regions, torch.tensor([[0.0, 0, 10, 10]]), NO_BOXES)
    assert objects.tolist() == [True, True, False]
    assert background.tolist() == [False, False, True]
    assert matched.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("objects", "background"), [(30, 50), (2, 50), (30, 3), (0, 50), (2, 1), (0, 0), (1, 0)]
)
def test_sampling(objects: int, background: int) -> None:
    kinds = torch.tensor([1] * objects + [0] * background + [-1] * 5)[
        torch.randperm(objects + background + 5)
    ]
    random = torch.rand(len(kinds))
    chosen, positive, used = sample(kinds == 1, kinds == 0, random, 16, 4)
    assert chosen.shape == positive.shape == used.shape == (16,)
    taken = min(objects, 4)
    assert positive.sum() == taken
    assert used.sum() == min(16, taken + background)
    assert (kinds[chosen[positive]] == 1).all()
    assert (kinds[chosen[used & ~positive]] == 0).all()
    assert len(set(chosen[used].tolist())) == used.sum()
    # Of the objects those with the highest numbers.
    highest = random[kinds == 1].sort(descending=True).values[:taken]
    assert torch.equal(random[chosen[positive]], highest)
