"""Patches are where a calculation by hand puts them, pixel by pixel, and gradients are those of a plain loop."""

import math

import pytest
import torch
from torch import Tensor

from tocsin.batch import DetectionBatch
from tocsin.models.patch_placement import Eot, Places, place_patch, ranked_targets, target_places

STILL = Eot()
VARIED = Eot(rotation=20.0, scale=0.2, shift=0.1, contrast=0.2, brightness=0.1)


def batch_of(boxes: list[list[float]], owner: list[int], *, size: int = 16, target: list[bool] | None = None):
    n = len(boxes)
    return DetectionBatch(
        image=torch.zeros(max(owner, default=0) + 1, 3, size, size),
        position=torch.arange(max(owner, default=0) + 1),
        boxes=torch.tensor(boxes).reshape(n, 4),
        owner=torch.tensor(owner, dtype=torch.int64),
        target=torch.tensor(target or [True] * n),
        crowd=torch.zeros(n, dtype=torch.bool),
    )


def places_at(
    centres: list[tuple[float, float]], side: float, *, owner: list[int] | None = None, degrees: float = 0.0
) -> Places:
    n = len(centres)
    owners = torch.tensor(owner or [0] * n)
    return Places(
        owner=owners,
        rank=torch.tensor([int((owners[:i] == owners[i]).sum()) for i in range(n)]),
        box=torch.arange(n),
        centre=torch.tensor(centres),
        side=torch.full((n,), side),
        angle=torch.full((n,), math.radians(degrees)),
        contrast=torch.ones(n),
        brightness=torch.zeros(n),
    )


# --- pixels by hand -----------------------------------------------------------------------------------------


def test_patch_of_its_own_size_is_copied_pixel_by_pixel() -> None:
    patch = torch.rand(3, 4, 4)
    images = torch.rand(2, 3, 16, 16)
    placed = place_patch(images, patch, places_at([(6.0, 9.0)], 4.0, owner=[1]))
    expected = images.clone()
    expected[1, :, 7:11, 4:8] = patch
    assert torch.allclose(placed, expected, atol=1e-6)


def test_quarter_turn_counter_clockwise() -> None:
    patch = torch.rand(3, 4, 4)
    placed = place_patch(torch.zeros(1, 3, 16, 16), patch, places_at([(8.0, 8.0)], 4.0, degrees=90.0))
    assert torch.allclose(placed[0, :, 6:10, 6:10], patch.rot90(1, (1, 2)), atol=1e-5)
    assert placed.sum() == pytest.approx(float(patch.sum()), rel=1e-4)


def test_edge_covers_the_share_of_a_pixel_that_lies_in_the_patch() -> None:
    white = torch.ones(3, 4, 4)
    placed = place_patch(torch.zeros(1, 3, 8, 8), white, places_at([(4.25, 4.0)], 2.0))
    row = torch.tensor([0.0, 0.0, 0.0, 0.75, 1.0, 0.25, 0.0, 0.0])  # from 3.25 to 5.25
    assert torch.allclose(placed[0, 0, 3], row, atol=1e-6)
    assert torch.allclose(placed[0, 0, 4], row, atol=1e-6)
    assert placed[0, 0, 2].abs().max() == 0


def test_patch_twice_as_large_shows_each_pixel_on_four() -> None:
    patch = torch.zeros(3, 2, 2)
    patch[:, 0, 1] = 1.0
    placed = place_patch(torch.zeros(1, 3, 8, 8), patch, places_at([(4.0, 4.0)], 4.0))
    corners = placed[0, 0, [2, 2, 5, 5], [2, 5, 2, 5]]
    assert torch.allclose(corners, torch.tensor([0.0, 1.0, 0.0, 0.0]), atol=1e-6)
    assert placed[0, 0, 3, 4] == pytest.approx(0.75 * 0.75)  # bilinear, a quarter of a pixel from the middle


def test_patch_shown_smaller_is_averaged_so_that_each_pixel_counts() -> None:
    patch = torch.zeros(3, 8, 8)
    patch[:, ::2, ::2] = 1.0  # a quarter of the pixels
    patch.requires_grad_()
    placed = place_patch(torch.zeros(1, 3, 8, 8), patch, places_at([(4.0, 4.0)], 2.0))
    assert torch.allclose(placed[0, :, 3:5, 3:5], torch.full((3, 2, 2), 0.25), atol=1e-6)
    placed.sum().backward()
    assert patch.grad.min() > 0


def test_patch_over_the_border_leaves_the_rest_alone() -> None:
    patch = torch.rand(3, 4, 4)
    images = torch.rand(2, 3, 8, 8)
    placed = place_patch(images, patch, places_at([(0.0, 8.0)], 4.0))
    expected = images.clone()
    expected[0, :, 6:8, 0:2] = patch[:, 0:2, 2:4]
    assert torch.allclose(placed, expected, atol=1e-6)


def test_near_patch_covers_a_far_one() -> None:
    patches = torch.stack([torch.full((3, 4, 4), 0.25), torch.full((3, 4, 4), 0.75)])
    placed = place_patch(torch.zeros(1, 3, 12, 12), patches, places_at([(4.0, 6.0), (6.0, 6.0)], 4.0))
    assert torch.allclose(
        placed[0, 0, 6], torch.tensor([0.0] * 2 + [0.25] * 2 + [0.75] * 4 + [0.0] * 4), atol=1e-6
    )


def test_contrast_and_brightness_change_the_look_within_its_range() -> None:
    places = places_at([(4.0, 4.0)], 4.0)._replace(
        contrast=torch.tensor([1.5]), brightness=torch.tensor([0.1])
    )
    for value, seen in ((0.4, 0.7), (0.8, 1.0)):
        placed = place_patch(torch.zeros(1, 3, 8, 8), torch.full((3, 4, 4), value), places)
        assert placed[0, 0, 4, 4] == pytest.approx(seen)


def test_without_targets_the_images_stay_as_they_are() -> None:
    patch = torch.rand(3, 4, 4, requires_grad=True)
    batch = batch_of([[2.0, 2.0, 8.0, 8.0]], [0], target=[False])
    images = torch.rand(1, 3, 16, 16)
    placed = place_patch(images, patch, target_places(batch, size=0.2, offset=0.1, eot=STILL, max_boxes=14))
    assert torch.equal(placed, images)
    placed.sum().backward()  # an optimizer step follows all the same
    assert patch.grad.abs().max() == 0


# --- gradients ----------------------------------------------------------------------------------------------


def slowly(images: Tensor, patch: Tensor, places: Places) -> Tensor:
    """One whole image for each patch, by plain operations."""
    images = images.clone()
    S = images.shape[-1]
    middle = torch.arange(S) + 0.5
    for n in range(len(places.owner)):
        (x, y), side, angle = places.centre[n], places.side[n], places.angle[n]
        right, down = torch.meshgrid(middle - x, middle - y, indexing="xy")
        u = (right * angle.cos() - down * angle.sin()) / (side / 2)
        v = (right * angle.sin() + down * angle.cos()) / (side / 2)
        alpha = ((1 - u.abs()) * side / 2 + 0.5).clamp(0, 1) * ((1 - v.abs()) * side / 2 + 0.5).clamp(0, 1)
        grid = torch.stack([u, v], dim=-1)[None]
        shown = torch.nn.functional.grid_sample(
            patch[None], grid, padding_mode="border", align_corners=False
        )[0]
        shown = (shown * places.contrast[n] + places.brightness[n]).clamp(0, 1)
        image = images[places.owner[n]] * (1 - alpha) + shown * alpha
        images = torch.stack([image if i == places.owner[n] else images[i] for i in range(len(images))])
    return images


def test_images_and_gradients_are_those_of_a_loop_over_boxes() -> None:
    batch = batch_of([[0.0, 1, 14, 12], [3, 3, 15, 15], [2, 2, 12, 16], [-4, 0, 9, 9]], [0, 0, 1, 1])
    places = target_places(batch, size=0.6, offset=0.1, eot=VARIED, max_boxes=14, seeds=torch.tensor([3, 4]))
    images, weights = torch.rand(2, 2, 3, 16, 16)
    results = []
    for place in (place_patch, slowly):
        patch = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
        placed = place(images, patch, places)
        (placed * weights).sum().backward()
        results.append((placed.detach(), patch.grad))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-4)


# --- places -------------------------------------------------------------------------------------------------


def test_side_is_a_share_of_the_diagonal_and_the_centre_lies_on_the_upper_body() -> None:
    batch = batch_of([[2.0, 4.0, 8.0, 12.0]], [0])  # 6 wide, 8 high: diagonal 10
    places = target_places(batch, size=0.2, offset=0.25, eot=STILL, max_boxes=14, rotation=30.0)
    assert places.side.tolist() == pytest.approx([2.0])
    assert places.centre[0].tolist() == pytest.approx([5.0, 6.0])
    assert places.angle.tolist() == pytest.approx([math.radians(30.0)])


def test_targets_are_ranked_from_far_to_near_and_the_largest_are_kept() -> None:
    boxes = [[0.0, 0, 4, 4], [0, 0, 9, 9], [0, 0, 2, 2], [0, 0, 5, 5], [0, 0, 16, 16]]
    batch = batch_of(boxes, [0, 0, 0, 1, 1], target=[True, True, True, True, False])
    owner, rank, box = ranked_targets(batch, 2)
    assert owner.tolist() == [0, 0, 1]
    assert rank.tolist() == [0, 1, 0]
    assert box.tolist() == [0, 1, 3]  # the smallest has no patch, nor has what is no target


def test_changes_are_within_their_bounds_and_differ_from_box_to_box() -> None:
    boxes = [[2.0, 2.0, 8.0, 10.0]] * 200
    batch = batch_of(boxes, [0] * 200)
    places = target_places(batch, size=0.2, offset=0.0, eot=VARIED, max_boxes=200)
    extents = {
        "side": (places.side - 2.0).abs() / 2.0 / 0.2,
        "angle": places.angle.abs() / math.radians(20.0),
        "contrast": (places.contrast - 1).abs() / 0.2,
        "brightness": places.brightness.abs() / 0.1,
        "x": (places.centre[:, 0] - 5.0).abs() / 0.6,
        "y": (places.centre[:, 1] - 6.0).abs() / 0.8,
    }
    for name, share in extents.items():
        assert 0.9 < share.max() <= 1.0 + 1e-5, name
        assert 0.4 < share.mean() < 0.6, name


def test_seeded_changes_of_a_box_depend_on_its_image_alone() -> None:
    one = batch_of([[2.0, 2, 8, 10]], [0])
    two = batch_of([[1.0, 1, 3, 9], [4, 4, 9, 9], [2, 2, 8, 10]], [0, 0, 1])
    alone = target_places(one, size=0.2, offset=0.0, eot=VARIED, max_boxes=14, seeds=torch.tensor([7]))
    beside = target_places(two, size=0.2, offset=0.0, eot=VARIED, max_boxes=14, seeds=torch.tensor([5, 7]))
    for name in ("centre", "side", "angle", "contrast", "brightness"):
        assert torch.equal(getattr(alone, name)[0], getattr(beside, name)[-1])
    assert alone.angle != 0


@pytest.mark.parametrize(("name", "value"), [("rotation", -1.0), ("scale", 1.0), ("noise", -0.1)])
def test_strength_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value} is not"):
        Eot(**{name: value})
