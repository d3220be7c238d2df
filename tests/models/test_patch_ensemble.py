"""Cutout, ShakeDrop and augmentation do what T-SEA says, and last no longer than asked."""

import pytest
import torch

from tocsin.batch import DetectionBatch
from tocsin.models import patch_ensemble
from tocsin.models.patch_ensemble import augmented, cut_out, residual_branches, shaken
from tocsin.models.yolo_networks import yolo_network


def test_cutout_grays_a_square_of_two_fifths_of_the_side() -> None:
    copies = cut_out(torch.ones(3, 50, 50), 400, probability=0.9)
    gray = (copies[:, 0] == 0.5).flatten(1).sum(dim=1)
    with_square = gray > 0
    assert 0.84 < with_square.float().mean() < 0.96
    assert gray.max() == 20 * 20
    assert gray[with_square].min() >= 17 * 17  # it hangs over the edge by a twentieth at most
    assert (copies == copies[:, :1]).all()  # all channels alike
    assert len({tuple(row.tolist()) for row in (copies[:, 0] == 0.5).float().mean(dim=2)[:20]}) > 10


def test_cutout_of_probability_0_changes_nothing() -> None:
    patch = torch.rand(3, 8, 8)
    assert torch.equal(cut_out(patch, 3, probability=0.0), patch.expand(3, 3, 8, 8))


def test_shakedrop_scales_each_way_on_its_own() -> None:
    x = torch.ones(4000, 1, 1, 1, requires_grad=True)
    layer = torch.nn.Identity()
    network = torch.nn.Module()
    network.branch = layer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patch_ensemble, "residual_branches", lambda _: [layer])
        with shaken(network, probability=0.5):
            y = layer(x)
    y.sum().backward()
    forward, backward = y.detach().flatten(), x.grad.flatten()
    for scale in (forward, backward):
        assert scale.mean() == pytest.approx(1.0, abs=0.05)
        assert 0 <= scale.min() < 0.05 < 1.95 < scale.max() <= 2
        assert (scale == 1).float().mean() == pytest.approx(0.5, abs=0.05)
    changed = forward != 1
    assert torch.equal(changed, backward != 1)
    correlation = torch.corrcoef(torch.stack([forward[changed], backward[changed]]))[0, 1]
    assert correlation.abs() < 0.1
    assert torch.equal(layer(x), x)  # the hooks are gone


@pytest.mark.parametrize(
    ("name", "count"), [("yolov8n", 6), ("yolov9t", 42), ("yolo11n", 13), ("yolov10n", 7), ("yolo26n", 17)]
)
def test_residual_branches_of_each_family_are_found_and_shaken(name: str, count: int) -> None:
    network = yolo_network(f"{name}.yaml").train()
    assert len(residual_branches(network)) == count
    images = torch.rand(2, 3, 64, 64)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network(images)  # random weights let signals fade unless they are normalised
    network.eval()
    clean = network(images)[1]
    with shaken(network, probability=0.0):
        same = network(images)[1]
    with shaken(network, probability=1.0):
        other = network(images)[1]
    logits = [(raw.get("one2one") or raw)["scores"] for raw in (clean, same, other)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def batch_with(image: torch.Tensor, box: list[float]) -> DetectionBatch:
    yes, no = torch.tensor([True]), torch.tensor([False])
    return DetectionBatch(image[None], torch.tensor([0]), torch.tensor([box]), torch.tensor([0]), yes, no)


def test_boxes_turn_and_mirror_with_their_images() -> None:
    image = torch.zeros(3, 64, 64)
    image[:, 10:16, 40:50] = 1.0
    mirrored = 0
    for _ in range(12):
        changed = augmented(batch_with(image, [40.0, 10.0, 50.0, 16.0]), probability=1.0)
        weight = (changed.image[0].mean(dim=0) - 0.3).clamp(min=0.0)  # without the background
        down, right = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
        middle = torch.stack([(weight * right).sum(), (weight * down).sum()]) / weight.sum()
        left, top, far, bottom = changed.boxes[0]
        assert torch.allclose(middle, torch.stack([(left + far) / 2, (top + bottom) / 2]), atol=0.3)
        assert far - left == pytest.approx(10.0, abs=1e-3)
        mirrored += int(middle[0] < 32)
    assert 0 < mirrored < 12


def test_augmentation_of_probability_0_changes_nothing() -> None:
    image = torch.rand(3, 32, 32)
    same = augmented(batch_with(image, [1.0, 2.0, 9.0, 12.0]), probability=0.0)
    assert torch.allclose(same.image[0], image, atol=1e-5)
    assert torch.allclose(same.boxes[0], torch.tensor([1.0, 2.0, 9.0, 12.0]), atol=1e-4)


def test_colours_change_within_bounds() -> None:
    image = torch.full((3, 32, 32), 0.5)
    means = [
        float(augmented(batch_with(image, [0.0, 0, 9, 9]), probability=1.0).image.mean()) for _ in range(30)
    ]
    assert 0.45 <= min(means) < 0.47 < 0.53 < max(means) <= 0.55
