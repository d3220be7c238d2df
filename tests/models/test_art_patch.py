"""ART's own wrapper fails on the installed ultralytics, ours does not; ART's attacks run on our victims."""

import logging
from typing import Any

import numpy as np
import pytest
import torch

from tocsin.errors import ConfigError, TocsinError
from tocsin.models import yolo_victim
from tocsin.models.art_estimator import LOSSES, ArtVictim, art_estimator
from tocsin.models.art_patch import ATTACKS, ArtPatch
from tocsin.models.attack_packages import require_art
from tocsin.models.yolo_networks import yolo_network
from tocsin.models.yolo_victim import YoloVictim, load_victim

PARAMETERS = {"art_patch": 0}  # it has a buffer
IMAGES = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
LABELS = [
    {
        "boxes": np.array([[8.0, 8.0, 40.0, 60.0]], np.float32),
        "labels": np.zeros(1, np.int64),
        "scores": np.ones(1, np.float32),
    }
] * 2


@pytest.fixture(autouse=True)
def _standin(tiny_victim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yolo_victim, "standin_network", lambda **_: tiny_victim.network)


@pytest.mark.parametrize(("name", "missing"), [("yolov8n", "0"), ("yolo26n", "'boxes'")])
def test_stock_wrapper_of_art_fails_on_the_installed_ultralytics_and_ours_does_not(
    name: str, missing: str
) -> None:
    """Once ART is mended this fails, and the estimator of our own may go."""
    require_art()
    from art.estimators.object_detection import PyTorchYolo

    stock = PyTorchYolo(
        yolo_network(f"{name}.yaml"),
        input_shape=(3, 64, 64),
        clip_values=(0.0, 1.0),
        attack_losses=("loss_total",),
        device_type="cpu",
        is_ultralytics=True,
        model_name=name,
    )
    with pytest.raises(KeyError) as caught:
        stock.compute_loss(IMAGES, LABELS)
    assert str(caught.value) == missing
    victim = load_victim(f"{name}.yaml")
    ours = art_estimator(ArtVictim(victim=victim), size=64)
    images = torch.from_numpy(IMAGES)
    boxes = torch.from_numpy(LABELS[0]["boxes"]).repeat(2, 1)
    expected = victim.losses(images, boxes, torch.tensor([0, 1]))["total"]
    assert float(ours.compute_loss(IMAGES, LABELS)) == pytest.approx(float(expected), rel=1e-5)
    assert np.abs(ours.loss_gradient(IMAGES, LABELS)).max(axis=(1, 2, 3)).min() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_of_the_estimator_has_its_own_gradient(loss: str, tiny_victim: Any) -> None:
    model = ArtVictim(victim=YoloVictim(network=tiny_victim.network))
    gradient = art_estimator(model, size=64, losses=(loss,)).loss_gradient(IMAGES, LABELS)
    total = art_estimator(model, size=64).loss_gradient(IMAGES, LABELS)
    assert np.abs(gradient).max() > 0
    assert (loss == "loss_total") == np.allclose(gradient, total, atol=1e-7)


def test_loss_of_another_name_is_refused_instead_of_left_out(tiny_victim: Any) -> None:
    model = ArtVictim(victim=YoloVictim(network=tiny_victim.network))
    with pytest.raises(ConfigError, match=r"losses=\['loss_classifier'\]: give one or more of loss_total"):
        art_estimator(model, size=64, losses=("loss_classifier",))


def test_predictions_are_the_sure_detections_of_the_victim(tiny_victim: Any) -> None:
    victim = YoloVictim(network=tiny_victim.network)
    images = tiny_victim.batch.image
    predicted = art_estimator(ArtVictim(victim=victim), size=64).predict(images.numpy())
    found = victim.detect(images)
    sure = found.scores >= 0.25
    assert sum(len(image["boxes"]) for image in predicted) == int(sure.sum()) > 4
    assert np.allclose(predicted[3]["boxes"], found.boxes[sure & (found.owner == 3)].numpy(), atol=1e-4)


@pytest.mark.parametrize("cleared", [False, True])
def test_art_adds_up_gradients_unless_they_are_cleared_with_the_model(
    cleared: bool, tiny_victim: Any
) -> None:
    """ART's defect, and what works around it."""
    require_art()
    from art.attacks.evasion import AdversarialPatchPyTorch

    model = ArtVictim(victim=YoloVictim(network=tiny_victim.network))
    gradients = []
    for iterations in (1, 3):
        attack = AdversarialPatchPyTorch(
            art_estimator(model, size=64),
            rotation_max=0.0,
            patch_location=(24, 24),
            learning_rate=1e-9,
            max_iter=iterations,
            batch_size=2,
            patch_shape=(3, 16, 16),
            patch_type="square",
            verbose=False,
        )
        if cleared:
            model.clear_with_model(attack._patch)
        attack.generate(tiny_victim.batch.image[:2].numpy(), LABELS, shuffle=False)
        gradients.append(attack._patch.grad.clone())
    assert gradients[0].abs().max() > 0
    assert torch.allclose(gradients[1], gradients[0] * (1 if cleared else 3), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("attack", "rate"), [*zip(ATTACKS, (0.1, 0.02), strict=True)])
def test_attacks_of_art_run_on_our_victims(
    attack: str, rate: float, tiny_victim: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = ArtPatch(
        attack=attack, iterations=6, batch_size=4, patch_size=16, size=0.25, learning_rate=rate, rotation=5.0
    )
    before = model.patch.clone()
    model.collect(tiny_victim.batch)
    with caplog.at_level(logging.INFO):
        model.finish()
    lines = [record.message for record in caplog.records if record.message.startswith("ART: iteration")]
    assert [line.split(",")[0] for line in lines] == [f"ART: iteration {i} of 6" for i in range(1, 7)]
    losses = [float(line.split()[-1]) for line in lines]
    assert losses[-1] < losses[0]
    assert not torch.allclose(model.patch, before)
    assert 0 <= model.patch.min() < model.patch.max() <= 1
    fresh = ArtPatch(patch_size=16, size=0.25)
    fresh.load_state_dict(model.state_dict())
    assert fresh.loss(tiny_victim.batch)["loss"] == model.loss(tiny_victim.batch)["loss"]
    assert list(model.state_dict()) == ["pixels"]


def test_without_anyone_to_wear_a_patch_there_is_nothing_to_train_on(tiny_victim: Any) -> None:
    model = ArtPatch(patch_size=16)
    batch = tiny_victim.batch
    model.collect(batch._replace(target=torch.zeros_like(batch.target)))
    with pytest.raises(TocsinError, match=r"no training image has anyone large enough .* data\.min_height"):
        model.finish()


def test_patch_too_large_for_every_image_is_named(tiny_victim: Any) -> None:
    model = ArtPatch(patch_size=16, size=1.0, iterations=1)
    batch = tiny_victim.batch
    model.collect(batch._replace(boxes=torch.tensor([[0.0, 0.0, 64.0, 64.0]]).repeat(len(batch.boxes), 1)))
    with pytest.raises(TocsinError, match=r"fits into no training image .* lower model\.size"):
        model.finish()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"attack": "dpatch"}, "attack='dpatch' is not one of 'adversarial_patch'"),
        ({"iterations": 0}, "iterations=0 is not at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 is not above 0"),
        ({"losses": ["loss_objectness"]}, r"losses=\['loss_objectness'\] is not some of"),
        ({"batch_size": 0}, "batch_size=0 is not at least 1"),
        ({"rotation": 200.0}, r"rotation=200.0 is not in \[0, 180\]"),
    ],
)
def test_option_out_of_range_is_named(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        ArtPatch(**options)
