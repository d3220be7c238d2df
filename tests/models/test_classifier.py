"""The classifier: head, freezing, groups, balance, mixing and Grad-CAM, with a small backbone."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tocsin.batch import ClassBatch
from tocsin.errors import ConfigError
from tocsin.models.classifier import Classifier, decay_groups, make_head

SIZE = 32
PARAMETERS = {"classifier": 24_690_755}  # as configured, with three classes: 23 508 032 of resnet50


def classifier(**options: Any) -> Classifier:
    settings: dict[str, Any] = {
        "height": SIZE,
        "width": SIZE,
        "n_classes": 3,
        "backbone": "test_resnet",
        "weights": None,
        "hidden": (16, 8),
        "freeze_epochs": 0,
    }
    torch.manual_seed(0)
    return Classifier(**(settings | options))


def batch(n: int = 8) -> ClassBatch:
    torch.manual_seed(1)
    labels = torch.arange(n) % 3
    images = torch.rand(n, 3, SIZE, SIZE) * 0.2
    for image, label in zip(images, labels, strict=True):  # each class has a bright third
        third = SIZE // 3
        image[:, :, int(label) * third : (int(label) + 1) * third] += 0.7
    return ClassBatch(images, torch.arange(n), labels)


def at_epoch(model: Classifier, epoch: int, epochs: int = 10) -> Classifier:
    model.epoch, model.epochs = epoch, epochs
    return model.train()


# --- head ---------------------------------------------------------------------------------------------------


def test_the_improved_head_is_that_of_the_recipe() -> None:
    head = make_head(2048, 5, head="improved", hidden=(512, 256), dropout=(0.5, 0.3, 0.2))
    kinds = [type(layer).__name__ for layer in head]
    block = ["Dropout", "Linear", "BatchNorm1d", "ReLU"]
    assert kinds == [*block, *block, "Dropout", "Linear"]
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.5, 0.3, 0.2]
    sizes = [(layer.in_features, layer.out_features) for layer in head if isinstance(layer, nn.Linear)]
    assert sizes == [(2048, 512), (512, 256), (256, 5)]


def test_the_linear_head_is_one_layer() -> None:
    head = make_head(64, 2, head="linear", hidden=(512, 256), dropout=(0.5, 0.3, 0.2))
    assert [type(layer).__name__ for layer in head] == ["Linear"]


def test_parameter_count_as_configured() -> None:
    model = classifier(backbone="resnet50", hidden=(512, 256))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS["classifier"]


# --- training -----------------------------------------------------------------------------------------------


def test_it_learns_classes_that_differ() -> None:
    model, data = classifier(mixup=0.0, dropout=(0.0, 0.0, 0.0), label_smoothing=0.0), batch(24)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    at_epoch(model, 5)
    for _ in range(25):
        optimizer.zero_grad()
        model.loss(data)["loss"].backward()
        optimizer.step()
    assert torch.equal(model.eval().logits(data.image).argmax(1), data.label)


def test_a_frozen_backbone_keeps_its_weights_and_its_statistics() -> None:
    model = at_epoch(classifier(freeze_epochs=2), 1)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    model.loss(batch())["loss"].backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.head.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())


def test_it_thaws_after_those_epochs() -> None:
    model = at_epoch(classifier(freeze_epochs=2), 2)
    means = [m.running_mean.clone() for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    model.loss(batch())["loss"].backward()
    assert all(p.grad is not None for p in model.backbone.parameters())
    after = [m.running_mean for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert any(not torch.equal(a, b) for a, b in zip(means, after, strict=True))


def test_the_validation_loss_is_the_plain_cross_entropy() -> None:
    """No smoothing, weights, priors or mixing: a number that runs can be compared by."""
    model = classifier(class_weights=[1.0, 2.0, 9.0], label_smoothing=0.3, mixup=5.0, mix_prob=1.0).eval()
    data = batch()
    assert data.label is not None
    expected = F.cross_entropy(model.logits(data.image), data.label)
    torch.testing.assert_close(model.loss(data)["loss"], expected)


def test_mixing_ends_before_the_training_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier(mix_off_share=0.2, mix_prob=1.0)
    mixed = []
    monkeypatch.setattr(
        model, "mixing", lambda *pair: mixed.append(model.epoch) or (pair[0], F.one_hot(pair[1], 3))
    )
    for epoch in range(10):
        at_epoch(model, epoch).loss(batch())
    assert mixed == list(range(8))


def test_log_priors_are_added_in_training_alone() -> None:
    priors = [-0.1, -3.0, -5.0]
    options: dict[str, Any] = {"mixup": 0.0, "label_smoothing": 0.0, "dropout": (0.0, 0.0, 0.0)}
    data = batch()
    assert data.label is not None
    model = at_epoch(classifier(log_priors=priors, **options), 5)
    torch.manual_seed(0)
    plain = at_epoch(classifier(**options), 5)
    features = plain.head(plain.backbone.forward_head(plain._features(data.image), pre_logits=True))
    torch.testing.assert_close(
        model.loss(data)["loss"], F.cross_entropy(features + torch.tensor(priors), data.label)
    )
    torch.testing.assert_close(model.eval().logits(data.image), plain.eval().logits(data.image))


def test_class_weights_reach_the_training_loss() -> None:
    data = batch()
    losses = [
        at_epoch(classifier(class_weights=weights, mixup=0.0, dropout=(0.0, 0.0, 0.0)), 5).loss(data)["loss"]
        for weights in (None, [1.0, 1.0, 1.0], [1.0, 1.0, 50.0])
    ]
    torch.testing.assert_close(losses[0], losses[1])
    assert not torch.isclose(losses[1], losses[2])


def test_a_batch_of_one_image_is_refused_in_training_only() -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size"):
        at_epoch(classifier(), 5).loss(batch(1))
    assert torch.isfinite(classifier().eval().loss(batch(1))["loss"])


# --- parameter groups ---------------------------------------------------------------------------------------


def test_biases_and_norms_have_no_decay_and_the_backbone_a_lower_rate() -> None:
    model = classifier(backbone_lr_scale=0.25)
    groups = model.parameter_groups()
    assert [(g["lr_scale"], g.get("weight_decay")) for g in groups] == [
        (1, None),
        (1, 0.0),
        (0.25, None),
        (0.25, 0.0),
    ]
    ids = [id(p) for g in groups for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())  # each once
    assert all(p.ndim > 1 for g in groups[::2] for p in g["params"])


def test_a_norm_is_known_by_its_kind() -> None:
    norm = nn.LayerNorm((4, 4))  # weights of two axes
    decayed, free = decay_groups(nn.Sequential(norm, nn.Linear(4, 2)))
    assert [p.shape for p in decayed] == [(2, 4)]
    assert len(free) == 3


# --- explanation --------------------------------------------------------------------------------------------


def test_the_activation_map_lies_where_the_class_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier(head="linear").eval()
    features = torch.zeros(2, model.backbone.num_features, 4, 4)
    features[:, 0, 0, 0] = 3.0  # speaks for class 0, at the upper left
    features[:, 1, 3, 3] = 2.0  # for class 1, at the lower right
    monkeypatch.setattr(model, "_features", lambda images: features)
    with torch.no_grad():
        model.head[0].weight.copy_(torch.eye(3, model.backbone.num_features))
    maps = model.activation_map(torch.zeros(2, 3, SIZE, SIZE), torch.tensor([0, 1]))
    assert maps is not None
    assert maps.shape == (2, SIZE, SIZE)
    assert (maps[0, 0, 0], maps[0, -1, -1]) == (1.0, 0.0)
    assert (maps[1, 0, 0], maps[1, -1, -1]) == (0.0, 1.0)


def test_the_activation_map_leaves_no_gradient_behind() -> None:
    model, data = classifier().eval(), batch(4)
    model.activation_map(data.image, torch.zeros(4, dtype=torch.int64))
    assert all(p.grad is None for p in model.parameters())


def test_tokens_have_no_map() -> None:
    model = classifier(backbone="test_vit", height=160, width=160).eval()
    assert model.activation_map(torch.rand(1, 3, 160, 160), torch.tensor([0])) is None


def test_a_transformer_is_made_for_the_size_of_the_images() -> None:
    model = classifier(backbone="test_vit", height=64, width=96).eval()
    assert model.logits(torch.rand(2, 3, 64, 96)).shape == (2, 3)


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "deep"}, "head"),
        ({"dropout": (0.5, 0.2)}, "dropout"),
        ({"dropout": (0.5, 0.2, 1.0)}, "dropout"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"focal_gamma": -1.0}, "focal_gamma"),
        ({"mix_prob": 2.0}, "mix_prob"),
        ({"mix_off_share": 1.5}, "mix_off_share"),
        ({"freeze_epochs": -1}, "freeze_epochs"),
        ({"backbone_lr_scale": -0.1}, "backbone_lr_scale"),
        ({"class_weights": [1.0, 2.0]}, "class_weights has 2 values for 3 classes"),
        ({"class_weights": [1.0] * 3, "log_priors": [-1.0] * 3}, "give one of them"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(**options)


def test_an_unknown_backbone_names_similar_ones() -> None:
    with pytest.raises(ConfigError, match="resnet50"):
        classifier(backbone="resnet5O")


def test_an_impossible_size_is_one_line() -> None:
    with pytest.raises(ConfigError, match="crossvit_9_240 takes no images of 64 x 96: "):
        classifier(backbone="crossvit_9_240", height=64, width=96)
