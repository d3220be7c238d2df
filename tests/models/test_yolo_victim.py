"""Victims: same outputs as ultralytics' own pass, gradients in both branches, and its detections."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tocsin.errors import ConfigError, DataError
from tocsin.models.yolo_networks import yolo_network
from tocsin.models.yolo_victim import YoloVictim, best_detections, class_number, load_victim

FAMILIES = ("yolov8n", "yolov9t", "yolo11n", "yolov10n", "yolo26n")
ONE_TO_ONE = ("yolov10n", "yolo26n")
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def victim(family: str) -> YoloVictim:
    torch.manual_seed(0)
    network = yolo_network(f"{family}.yaml")
    head = network.model[-1]
    for convs in (head.cv3, getattr(head, "one2one_cv3", head.cv3)):
        for conv in convs:
            conv[-1].bias.data.zero_()  # else confidences are so low that no gradient is left
    return YoloVictim(network=network, target_class=2)


def test_logits_and_boxes_are_those_of_ultralytics(victim: YoloVictim, family: str) -> None:
    first = victim(IMAGES)[0]
    victim._network[0].end2end = family in ONE_TO_ONE
    decoded, raw = victim._network[0](IMAGES)
    if family in ONE_TO_ONE:  # there only the best are given, of all classes
        assert first.name == "one2one"
        assert torch.allclose(first.logits, raw["one2one"]["scores"][:, 2], atol=1e-5)
        image, theirs = decoded[0], first.boxes[0]
        distance = torch.cdist(image[:, :4], theirs).min(dim=1).values
        assert distance.max() < 0.1  # pixels
    else:
        assert torch.allclose(first.logits.sigmoid(), decoded[:, 4 + 2], atol=1e-5)
        centre, size = decoded[:, :4].transpose(1, 2).split(2, dim=2)
        assert torch.allclose(
            first.boxes, torch.cat([centre - size / 2, centre + size / 2], dim=2), atol=1e-2
        )


def test_every_branch_has_a_gradient_and_no_weight_does(victim: YoloVictim, family: str) -> None:
    images = IMAGES.clone().requires_grad_()
    branches = victim(images)
    assert [branch.weight for branch in branches] == ([1.0, 0.3] if family in ONE_TO_ONE else [1.0])
    for branch in branches:
        for output in (branch.logits, branch.boxes):
            (gradient,) = torch.autograd.grad(output.sum(), images, retain_graph=True)
            assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0
    assert not any(parameter.requires_grad for parameter in victim.parameters())


def test_each_term_of_the_loss_has_a_gradient_of_its_own(victim: YoloVictim) -> None:
    images = IMAGES.clone().requires_grad_()
    boxes, owner = torch.tensor([[5.0, 5.0, 40.0, 60.0], [20.0, 8.0, 60.0, 50.0]]), torch.tensor([0, 1])
    losses = victim.losses(images, boxes, owner)
    gradients = {
        name: torch.autograd.grad(value, images, retain_graph=True)[0] for name, value in losses.items()
    }
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())
    assert torch.allclose(
        gradients["total"], gradients["box"] + gradients["cls"] + gradients["dfl"], atol=1e-6
    )
    assert losses["total"].item() == pytest.approx(sum(losses[name].item() for name in ("box", "cls", "dfl")))


def test_loss_of_empty_images_is_the_cross_entropy_of_all_anchors_with_nothing(victim: YoloVictim) -> None:
    losses = victim.losses(IMAGES, torch.empty(0, 4), torch.empty(0, dtype=torch.int64))
    raw = victim._raw(IMAGES)
    gain = victim._network[0].args.cls
    expected = sum(victim._weight(name) * gain * F.softplus(raw[name]["scores"]).sum() for name in raw)
    assert losses["cls"].item() == pytest.approx(float(expected), rel=1e-4)
    assert losses["box"] == losses["dfl"] == 0


def test_a_victim_stays_in_evaluation_mode(victim: YoloVictim) -> None:
    victim.train()
    assert not any(module.training for module in victim.modules())


def test_detections_are_the_confident_anchors_of_the_first_branch(victim: YoloVictim, family: str) -> None:
    first = victim(IMAGES)[0]
    found = victim.detect(IMAGES)
    best = first.logits.sigmoid().amax(dim=1)
    tops = torch.stack([found.scores[found.owner == image][0] for image in range(2)])
    assert torch.allclose(tops, best, atol=1e-6)
    if family in ONE_TO_ONE:
        assert len(found.scores) == first.logits.numel()  # nothing is suppressed
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 64


def test_size_that_does_not_fit_the_stride_is_named() -> None:
    victim = load_victim("yolov8n.yaml")
    with pytest.raises(DataError, match=r"48 x 64 pixels .* multiple of 32"):
        victim(torch.zeros(1, 3, 64, 48))


def test_class_the_victim_does_not_have_is_named() -> None:
    with pytest.raises(ConfigError, match="target_class=80 is not one of the 80 classes"):
        load_victim("yolov8n.yaml", target_class=80)


def test_class_is_found_by_number_or_name() -> None:
    network = SimpleNamespace(names={0: "person", 2: "Car"})
    assert [class_number(network, asked) for asked in ("person", "car", 2, "7")] == [0, 2, 2, 7]
    with pytest.raises(
        ConfigError, match=r"persn: the victim has no such class \(did you mean 'person'.*car"
    ):
        class_number(network, "persn")


BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [1, 1, 2, 2]])


@pytest.mark.parametrize(
    ("nms", "scores", "owner"),
    [
        (True, [0.9, 0.3, 0.8, 0.5], [0, 0, 1, 1]),  # the second box of either image is a double
        (False, [0.9, 0.6, 0.3, 0.8, 0.7, 0.5], [0, 0, 0, 1, 1, 1]),
    ],
)
def test_doubles_are_suppressed_within_an_image(nms: bool, scores: list[float], owner: list[int]) -> None:
    confidence = torch.tensor([[0.9, 0.6, 0.3, 0.0009], [0.7, 0.8, 0.5, 0.0]])
    found = best_detections(BOXES.expand(2, 4, 4), confidence, nms=nms)
    assert found.scores.tolist() == pytest.approx(scores)
    assert found.owner.tolist() == owner
    assert found.boxes[0].tolist() == [0, 0, 10, 10]


def test_an_image_has_at_most_300_detections() -> None:
    scores = torch.rand(2, 500) / 2 + 0.1
    found = best_detections(torch.rand(2, 500, 4), scores, nms=False)
    assert found.owner.bincount().tolist() == [300, 300]
    assert torch.equal(found.scores[:300], scores[0].sort(descending=True).values[:300])


def test_nothing_is_found_in_nothing() -> None:
    found = best_detections(BOXES[None], torch.zeros(1, 4), nms=True)
    assert found.boxes.shape == (0, 4)
