"""Objectives and terms, with values from calculations by hand."""

import math

import pytest
import torch

from tocsin.models.patch_losses import (
    OBJECTIVES,
    PRINTABLE,
    detection_loss,
    non_printability,
    object_overlap,
    total_variation,
)
from tocsin.models.yolo_victim import Branch


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def softplus(z: float) -> float:
    return math.log1p(math.exp(z))


# Two images, three anchors. The object of image 0 holds the first anchor, and the box of the second overlaps it.
BRANCH = Branch(
    name="one2many",
    logits=torch.tensor([[1.0, 2.0, 3.0], [4.0, -1.0, 0.0]]),
    boxes=torch.tensor([[[0.0, 0, 1, 1], [0, 0, 10, 5], [20, 20, 30, 30]], [[0, 0, 1, 1]] * 3]),
    centres=torch.tensor([[4.0, 4.0], [16.0, 4.0], [24.0, 24.0]]),
    weight=1.0,
)
BOXES, OWNER = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([0])


def loss(objective: str, top_k: int = 2) -> float:
    return float(detection_loss(BRANCH, BOXES, OWNER, objective=objective, top_k=top_k))


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("vanish_max", sigmoid(3.0)),  # the third anchor, though it belongs to no object
        ("vanish_topk", (sigmoid(1.0) + sigmoid(2.0)) / 2),
        ("vanish_logsumexp", softplus(math.log(math.exp(1.0) + math.exp(2.0)))),
        ("bce_background", softplus(1.0) + softplus(2.0) + softplus(3.0)),
        ("misplace", softplus(math.log(0.05**3 * math.exp(1.0) + 0.5**3 * math.exp(2.0)))),
        ("iou_weighted", (0.01 * sigmoid(1.0) + 0.5 * sigmoid(2.0)) / 2),
    ],
)
def test_objective_by_hand(objective: str, expected: float) -> None:
    assert loss(objective) == pytest.approx(expected, rel=1e-5)


def test_all_objectives_are_tested_and_fall_when_the_victim_is_less_sure() -> None:
    assert len(OBJECTIVES) == 6
    for objective in OBJECTIVES:
        weaker = BRANCH._replace(logits=BRANCH.logits - 1)
        assert float(detection_loss(weaker, BOXES, OWNER, objective=objective)) < loss(objective, top_k=10)


def test_only_the_best_anchors_of_an_object_count() -> None:
    assert loss("vanish_topk", top_k=1) == pytest.approx(sigmoid(2.0))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_misplacing_moves_boxes(objective: str) -> None:
    boxes = BRANCH.boxes.clone().requires_grad_()
    branch = BRANCH._replace(boxes=boxes, logits=BRANCH.logits.clone().requires_grad_())
    detection_loss(branch, BOXES, OWNER, objective=objective).backward()
    assert branch.logits.grad.abs().max() > 0
    if objective == "misplace":
        assert boxes.grad[0, 1, 3] > 0  # the bottom of the second box is moved up, away from the object's
    else:
        assert boxes.grad is None


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_without_objects_there_is_nothing_to_lose_but_a_gradient(objective: str) -> None:
    logits = BRANCH.logits.clone().requires_grad_()
    value = detection_loss(BRANCH._replace(logits=logits), BOXES[:0], OWNER[:0], objective=objective)
    value.backward()
    assert value == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


def test_overlap_is_that_of_torchvision() -> None:
    from torchvision.ops import box_iou

    corner = torch.rand(5, 2) * 10
    boxes = torch.cat([corner, corner + 1 + torch.rand(5, 2) * 10], dim=1)
    branch = BRANCH._replace(boxes=boxes[None])
    owner = torch.zeros(5, dtype=torch.int64)
    assert torch.allclose(object_overlap(branch, boxes, owner), box_iou(boxes, boxes), atol=1e-6)


def test_total_variation_by_hand() -> None:
    patch = torch.zeros(3, 2, 2)
    patch[0, 0, 0] = 1.0  # differs from one neighbour below and one to the right
    assert float(total_variation(patch)) == pytest.approx(2 / 12)
    assert float(total_variation(torch.full((3, 4, 4), 0.3))) == 0


def test_non_printability_is_the_distance_from_the_nearest_colour() -> None:
    colour = torch.tensor(PRINTABLE[7])
    patch = colour[:, None, None].expand(3, 2, 2).clone()
    assert float(non_printability(patch)) == pytest.approx(0.0, abs=1e-4)
    patch[:, 0, 0] += torch.tensor([0.03, 0.0, 0.04])  # 0.05 away
    assert float(non_printability(patch)) == pytest.approx(0.05 / 12, rel=1e-2)
    assert len(PRINTABLE) == 30
