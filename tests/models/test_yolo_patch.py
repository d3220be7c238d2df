"""The patch is all there is to train and to keep, and it makes a victim lose what controls do not."""

from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.ops import box_iou

from tocsin.batch import DetectionBatch
from tocsin.errors import ConfigError
from tocsin.models import yolo_victim
from tocsin.models.patch_losses import OBJECTIVES
from tocsin.models.yolo_patch import RAISED, YoloPatch
from tocsin.tasks.base import Task

PARAMETERS = {"yolo_patch": 12_288}  # the patch alone


@pytest.fixture(autouse=True)
def _standin(tiny_victim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yolo_victim, "standin_network", lambda **_: tiny_victim.network)


@pytest.fixture
def batch(tiny_victim: Any) -> DetectionBatch:
    return tiny_victim.batch


def confidence(model: YoloPatch, batch: DetectionBatch, images: Tensor) -> float:
    """Mean confidence of the best detection of each figure."""
    found = model.detect(images)
    mine = (box_iou(batch.boxes, found.boxes) >= 0.5) & (batch.owner[:, None] == found.owner)
    return float((mine * found.scores).amax(dim=1).mean())


def train(model: YoloPatch, batch: DetectionBatch, steps: int) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    losses = []
    for _ in range(steps):
        loss = model.loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
        losses.append(loss.item())
    return losses


def test_attack_beats_its_controls(batch: DetectionBatch) -> None:
    model = YoloPatch(patch_size=16, size=0.25, rotation=5.0, tv_weight=0.0, augment=0.0)
    clean = confidence(model, batch, batch.image)
    assert clean > 0.4  # the victim does see them
    train(model, batch, 40)
    controls = {
        "gray": torch.full((3, 16, 16), 0.5),
        "white": torch.ones(3, 16, 16),
        "black": torch.zeros(3, 16, 16),
        "noise": torch.rand(3, 16, 16),
    }
    seen = {
        name: confidence(model, batch, model.apply_patch(batch, patch)) for name, patch in controls.items()
    }
    attacked = confidence(model, batch, model.apply_patch(batch))
    assert attacked < 0.7 * min(seen.values()), (attacked, seen)
    assert model.patch.min() >= 0
    assert model.patch.max() <= 1


@pytest.mark.parametrize("objective", [*OBJECTIVES, *RAISED])
def test_every_objective_falls_in_training(objective: str, batch: DetectionBatch) -> None:
    model = YoloPatch(patch_size=8, size=0.25, objective=objective, augment=0.0, tv_weight=0.0, noise=0.0)
    model.eval()  # the same changes each time
    losses = train(model, batch, 8)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("objective", "term"), RAISED.items())
def test_raised_term_is_that_of_the_victims_own_loss(
    objective: str, term: str, batch: DetectionBatch
) -> None:
    model = YoloPatch(patch_size=8, size=0.25, objective=objective, augment=0.0, tv_weight=0.0)
    model.eval()
    before = model.victims[0].losses(*model._patched(batch))[term]
    assert model.loss(batch)["detection"].item() == pytest.approx(-float(before), rel=1e-4)
    train(model, batch, 20)
    after = model.victims[0].losses(*model._patched(batch))[term]
    assert after > 1.05 * before


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"cutout": 1.0}, {"shakedrop": 1.0}, {"augment": 1.0}])
def test_training_is_random_and_validation_is_not(options: dict[str, float], batch: DetectionBatch) -> None:
    model = YoloPatch(patch_size=8, **options)
    assert model.loss(batch)["loss"] != model.loss(batch)["loss"]
    model.eval()
    assert model.loss(batch)["loss"] == model.loss(batch)["loss"]
    half = DetectionBatch(
        batch.image[4:],
        batch.position[4:],
        *(part[batch.owner >= 4] for part in (batch.boxes, batch.owner - 4, batch.target, batch.crowd)),
    )
    front = DetectionBatch(
        batch.image[:4],
        batch.position[:4],
        *(part[batch.owner < 4] for part in (batch.boxes, batch.owner, batch.target, batch.crowd)),
    )
    weights = [len(part.boxes) / len(batch.boxes) for part in (front, half)]
    parts = sum(
        weight * model.loss(part)["detection"] for weight, part in zip(weights, (front, half), strict=True)
    )
    assert float(parts) == pytest.approx(
        float(model.loss(batch)["detection"]), rel=1e-4
    )  # batches do not matter


def test_half_precision_of_the_victim_leaves_the_loss_nearly_as_it_is(batch: DetectionBatch) -> None:
    model = YoloPatch(patch_size=8, size=0.25).eval()
    whole = model.loss(batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        half = model.loss(batch)["loss"]
        terms = model.victims[0].losses(batch.image, batch.boxes, batch.owner)
    exact = model.victims[0].losses(batch.image, batch.boxes, batch.owner)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(whole.item(), rel=0.05)
    assert half != whole
    assert float(terms["total"]) == pytest.approx(float(exact["total"]), rel=0.05)
    half.backward()
    assert torch.isfinite(model.pixels.grad).all()
    assert model.pixels.grad.abs().max() > 0


@torch.no_grad()
def test_terms_add_up(batch: DetectionBatch) -> None:
    model = YoloPatch(patch_size=8, tv_weight=2.0, tv_floor=0.0, nps_weight=0.5).eval()
    terms = model.loss(batch)
    assert float(terms["loss"]) == pytest.approx(
        float(terms["detection"] + 2.0 * terms["tv"] + 0.5 * terms["nps"]), rel=1e-5
    )
    floor = YoloPatch(patch_size=8, tv_weight=2.0, tv_floor=9.0, nps_weight=0.0).eval().loss(batch)
    assert float(floor["loss"]) == pytest.approx(float(floor["detection"]) + 9.0, rel=1e-5)


def test_the_patch_is_all_that_is_kept_and_loads_into_a_fresh_object(batch: DetectionBatch) -> None:
    model = YoloPatch(victim=["standin", "yolo26n.yaml"], patch_size=8)
    assert list(model.state_dict()) == ["pixels"]
    assert [name for name, _ in model.named_parameters()] == ["pixels"]
    fresh = YoloPatch(patch_size=8)
    assert not torch.equal(fresh.patch, model.patch)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.apply_patch(batch), model.apply_patch(batch))


def test_victims_follow_to_a_device_and_stay_frozen() -> None:
    model = YoloPatch(victim="yolo11n.yaml", patch_size=8)
    model.train().requires_grad_(True)
    victim = model.victims[0]
    assert not any(module.training for module in victim.modules())
    assert not any(parameter.requires_grad for parameter in victim.parameters())
    model.to("meta")
    assert {parameter.device.type for parameter in victim.parameters()} == {"meta"}


def test_victims_take_turns_and_a_resumed_epoch_takes_the_same() -> None:
    model = YoloPatch(victim=["standin", "yolo11n.yaml"], patch_size=8)

    def turns(epoch: int) -> list[int]:
        model.epoch = epoch
        taken = []
        for _ in range(3):
            taken.append(model.victims.index(model._victim_in_turn()))
            model.after_step()
        return taken

    assert turns(0) == [0, 1, 0]
    assert turns(1) == [1, 0, 1]
    assert turns(2) == [0, 1, 0]


def test_both_heads_and_all_victims_reach_the_patch(batch: DetectionBatch) -> None:
    torch.manual_seed(0)
    model = YoloPatch(victim="yolo26n.yaml", patch_size=8).eval()
    head = model.victims[0].layers[-1]
    for convs in (head.cv3, head.one2one_cv3):
        for conv in convs:
            conv[-1].bias.data.zero_()
    images = model._patched(batch)[0]
    for branch in model.victims[0](images):
        (gradient,) = torch.autograd.grad(branch.logits.sum(), model.pixels, retain_graph=True)
        assert gradient.abs().max() > 0, branch.name


class PatchTask(Task):
    """Records the gradient of each step."""

    accepts = "detection"
    assess = figures = None  # type: ignore[assignment]  # not reached

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.seen = [*getattr(self, "seen", []), self.detector.pixels.grad.clone()]


def test_gradients_are_zeroed_in_each_step(batch: DetectionBatch) -> None:
    model = YoloPatch(patch_size=8, size=0.25, augment=0.0, noise=0.0, rotation=0.0, scale=0.0, contrast=0.0)
    model.eot = type(model.eot)()
    task = PatchTask(detector=model, optimizer=lambda groups: torch.optim.SGD(groups, lr=1e-9))
    trainer = L.Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, DataLoader([batch] * 3, batch_size=None))
    first, second, third = task.seen
    assert first.abs().max() > 0
    assert torch.allclose(first, second, rtol=1e-3, atol=1e-7)
    assert torch.allclose(first, third, rtol=1e-3, atol=1e-7)


def test_patch_is_worn_at_the_size_and_angle_asked_for(batch: DetectionBatch) -> None:
    model = YoloPatch(patch_size=8, size=0.2)
    white = torch.ones(3, 8, 8)
    blank = batch._replace(image=torch.zeros_like(batch.image))
    areas = [float(model.apply_patch(blank, white, size=size)[:, 0].sum()) for size in (0.1, 0.2)]
    assert areas[1] / areas[0] == pytest.approx(4.0, rel=0.25)  # less where two overlap or leave the image
    assert torch.equal(model.apply_patch(blank, white), model.apply_patch(blank, white, size=0.2))
    turned = model.apply_patch(blank, white, rotation=45.0)
    assert not torch.allclose(turned, model.apply_patch(blank, white), atol=0.1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"objective": "vanish"}, "objective='vanish' is not one of 'vanish_max'"),
        ({"size": 0.0}, r"size=0.0 is not in \(0, 1\]"),
        ({"patch_size": 1}, "patch_size=1 is not at least 2"),
        ({"top_k": 0}, "top_k=0 is not at least 1"),
        ({"cutout": 1.5}, r"cutout=1.5 is not in \[0, 1\]"),
        ({"tv_weight": -1.0}, "tv_weight=-1.0 is not at least 0"),
        ({"max_boxes": 0}, "max_boxes=0 is not at least 1"),
        ({"victim": []}, r"victim=\[\] is not one or several names"),
        ({"noise": -0.1}, "noise=-0.1 is not at least 0"),
    ],
)
def test_option_out_of_range_is_named(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        YoloPatch(**options)


def test_unknown_victim_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        YoloPatch(victim="absent.pt")
