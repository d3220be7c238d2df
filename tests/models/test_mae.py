from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tocsin.batch import SeriesBatch
from tocsin.models.mae import MaskedAutoencoder
from tocsin.models.mae_losses import change_weights
from tocsin.models.patchify import build_patchify, from_patches, spread_groups, to_patches

TINY = {"d_model": 16, "n_heads": 2, "feedforward": 32, "encoder_layers": 1, "teacher_layers": 2}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small are slower on several threads, by far on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(**changes: object) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(**{"window": 40, "n_channels": 3, **TINY, **changes})


def batch_of(x: Tensor, labels: Tensor | None = None) -> SeriesBatch:
    return SeriesBatch(x, torch.zeros(len(x), dtype=torch.int64), labels)


def waves(batch: int, window: int = 40) -> Tensor:
    """Three channels on one phase, so that each hidden value can be known from what is visible."""
    phase = torch.rand(batch, 1, 1) * 6.283
    time = torch.arange(window)[None, :, None] * 0.4
    return torch.sin(time * torch.tensor([1.0, 0.5, 1.0]) + phase + torch.tensor([0.0, 0.7, 1.5]))


def in_student_stage(model: MaskedAutoencoder) -> MaskedAutoencoder:
    model.begin_stage("student", [])
    return model


def train_steps(model: MaskedAutoencoder, stage: str, steps: int) -> list[float]:
    model.begin_stage(stage, [])
    model.train()
    optimizer = torch.optim.AdamW(list(model.trainable(stage)), lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = model.loss(batch_of(waves(16)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    ("patchify", "leaks"), [("linear", False), ("patch_cnn", False), ("cnn_first", True)]
)
def test_patch_changes_only_its_own_token(patchify: str, leaks: bool) -> None:
    torch.manual_seed(0)
    embed = build_patchify(patchify, 3, 4, 16, "flatten").eval()
    x = torch.randn(2, 40, 3)
    changed = x.clone()
    changed[:, 16:20] += 1.0  # patch 4
    difference = (embed(x) != embed(changed)).flatten(2).any(dim=2).any(dim=0)
    touched = difference.nonzero().flatten().tolist()
    assert touched == ([3, 4, 5] if leaks else [4])


@pytest.mark.parametrize("hide_masked", [True, False])
def test_hidden_values_leak_only_as_published(hide_masked: bool) -> None:
    model = in_student_stage(tiny(patchify="cnn_first", hide_masked=hide_masked)).eval()
    x = torch.randn(2, 40, 3)
    mask = torch.zeros(2, 10, dtype=torch.bool)
    mask[:, 4] = True
    changed = x.clone()
    changed[:, 16:20] += 1.0
    before, _ = model._encode(x, mask, 1)
    after, _ = model._encode(changed, mask, 1)
    assert torch.equal(before, after) == hide_masked


@pytest.mark.parametrize("wiring", ["after_encoder", "before_encoder"])
def test_output_of_a_hidden_patch_does_not_depend_on_its_values(wiring: str) -> None:
    model = in_student_stage(tiny(mask_wiring=wiring)).eval()
    x = torch.randn(2, 40, 3)
    mask = torch.zeros(2, 10, dtype=torch.bool)
    mask[:, [2, 7]] = True
    changed = x.clone()
    changed[:, 8:12] += 1.0
    for before, after in zip(
        model._decode("patch", model._masked("patch", x, mask, 2), student=True),
        model._decode("patch", model._masked("patch", changed, mask, 2), student=True),
        strict=True,
    ):
        assert torch.equal(before, after)


def test_channels_are_not_interleaved() -> None:
    x = torch.arange(3.0).expand(2, 40, 3)
    assert torch.equal(from_patches(to_patches(x, 4), 4), x)
    assert torch.equal(to_patches(x, 4)[0, 0], torch.arange(3.0).repeat(4))
    for name in ("patch_cnn", "cnn_first"):
        embed = build_patchify(name, 3, 4, 16, "mean")
        seen: list[Tensor] = []
        embed.convolve[0].register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        embed(x)
        assert torch.equal(seen[0], torch.arange(3.0)[None, :, None].expand_as(seen[0]))


def test_position_is_added_before_patches_are_hidden() -> None:
    model = tiny().eval()
    x = torch.zeros(1, 40, 3)
    mask = torch.zeros(1, 10, dtype=torch.bool)
    mask[:, :5] = True
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model._encode(x, mask, 5)
    expected = model.patchify(x)[:, 5:] + model.positions[5:]
    assert torch.equal(seen[0], expected)


def test_teacher_and_student_have_their_own_mask_tokens() -> None:
    model = in_student_stage(tiny()).eval()
    x = torch.randn(2, 40, 3)
    teacher, student = model._decode(
        "patch", model._masked("patch", x, model.masks[:2], model.n_hidden), student=True
    )
    with torch.no_grad():
        model.student_token.add_(1.0)
    same_teacher, other_student = model._decode(
        "patch", model._masked("patch", x, model.masks[:2], model.n_hidden), student=True
    )
    assert torch.equal(teacher, same_teacher)
    assert not torch.equal(student, other_student)


@pytest.mark.parametrize("wiring", ["after_encoder", "before_encoder"])
def test_student_loss_reaches_only_the_student(wiring: str) -> None:
    model = in_student_stage(tiny(mask_wiring=wiring)).train()
    model.loss(batch_of(torch.randn(4, 40, 3)))["loss"].backward()
    own = {id(p) for p in model.trainable("student")}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in own), name
        assert (id(parameter) in own) == name.startswith("student"), name


def test_joint_student_term_gives_no_gradient_to_encoder_and_teacher() -> None:
    x = torch.randn(4, 40, 3)
    grads = []
    for weight in (0.0, 5.0):
        model = tiny(schedule="joint", warmup_epochs=0, distill_weight=weight, dropout=0.0).train()
        torch.manual_seed(1)
        model.loss(batch_of(x))["loss"].backward()
        grads.append([p.grad for n, p in model.named_parameters() if not n.startswith("student")])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_joint_warms_up_without_the_student() -> None:
    model = tiny(schedule="joint", warmup_epochs=2).train()
    x = torch.randn(4, 40, 3)
    assert "disc" not in model.loss(batch_of(x))
    assert "disc" in model.eval().loss(batch_of(x))  # the validation loss means the same in every epoch
    model.train().epoch = 2
    assert "disc" in model.loss(batch_of(x))


def test_frozen_parts_stay_in_eval_mode() -> None:
    model = in_student_stage(tiny()).train()
    assert not model.encoder.training
    assert not model.teacher.training
    assert model.student.training
    model.begin_stage("teacher", [])
    assert model.train().encoder.training


def expected_parameters(c: int, p: int, d: int, f: int, enc: int, tea: int, stu: int) -> int:
    attention = 4 * (d * d + d)
    feedforward = 2 * d * f + f + d
    encoder = enc * (attention + feedforward + 2 * 2 * d)
    decoder = (tea + stu) * (2 * attention + feedforward + 3 * 2 * d)
    heads = 2 * (d + 1) * p * c
    return (p * c + 1) * d + encoder + decoder + heads + 2 * d


@pytest.mark.parametrize(
    ("sizes", "total"),
    [
        ({"window": 100, "n_channels": 8}, 490_112),
        ({"window": 100, "n_channels": 8, "mask_wiring": "before_encoder"}, 490_048),
        ({"window": 100, "n_channels": 8, "patchify": "cnn_first"}, 511_648),
        ({"window": 100, "n_channels": 8, "patchify": "patch_cnn"}, 511_648),
        ({"window": 100, "n_channels": 8, "patchify": "patch_cnn", "pool": "mean"}, 495_200),
    ],
)
def test_parameter_count(sizes: dict[str, object], total: int) -> None:
    model = MaskedAutoencoder(**sizes, patch_size=4, d_model=64)
    assert sum(p.numel() for p in model.parameters()) == total
    assert expected_parameters(8, 4, 64, 256, 3, 4, 1) == 490_112


def test_scores_of_all_masks_equal_a_loop_over_masks() -> None:
    model = in_student_stage(tiny(score_groups=5, student_weight=0.7)).eval()
    x = torch.randn(3, 40, 3)
    total, times = torch.zeros_like(x), torch.zeros(40, 1)
    for mask in model.masks:
        hidden = mask.repeat_interleave(4)[:, None]
        teacher, student = model._decode(
            "patch", model._masked("patch", x, mask.expand(3, -1), int(mask.sum())), student=True
        )
        teacher, student = from_patches(teacher, 4), from_patches(student, 4)
        total += hidden * ((teacher - x).square() + 0.7 * (teacher - student).square())
        times += hidden
    assert (times == 1).all()
    torch.testing.assert_close(model.channel_scores(x), total, rtol=1e-4, atol=1e-5)


def test_groups_hide_every_patch_equally_often_in_each_mask() -> None:
    masks = spread_groups(25, 4)
    assert masks.any(dim=0).all()
    assert masks.sum(dim=1).tolist() == [7, 7, 7, 7]
    assert spread_groups(25, 5).sum(dim=0).tolist() == [1] * 25


def test_mask_last_n_hides_the_patches_that_overlap_the_end() -> None:
    model = MaskedAutoencoder(window=100, n_channels=2, patch_size=4, score="mask_last_n", last_n=10, **TINY)
    assert model.masks.nonzero()[:, 1].tolist() == [22, 23, 24]
    scores = model.eval().channel_scores(torch.randn(2, 100, 2))
    assert scores[:, :90].isnan().all()
    assert scores[:, 90:].isfinite().all()


def test_reconstruction_of_hidden_points_gives_the_score() -> None:
    model = in_student_stage(tiny()).eval()
    x = torch.randn(2, 40, 3)
    made = model.reconstruct(x)
    score = (made.teacher - x).square() + 0.5 * (made.teacher - made.student).square()
    torch.testing.assert_close(model.channel_scores(x), score, rtol=1e-4, atol=1e-5)
    assert made.mask.all()
    assert tiny(score="mask_last_n").eval().reconstruct(x).mask[0].nonzero().flatten().tolist() == [
        *range(28, 40)
    ]


def test_validation_loss_is_deterministic() -> None:
    model = tiny().eval()
    batch = batch_of(torch.randn(4, 40, 3))
    assert model.loss(batch)["loss"] == model.loss(batch)["loss"]
    model.train()
    assert model.loss(batch)["loss"] != model.loss(batch)["loss"]


def test_learns_and_ranks_a_planted_anomaly_first() -> None:
    model = tiny()
    teacher_losses = train_steps(model, "teacher", 250)
    assert sum(teacher_losses[-10:]) < 0.6 * sum(teacher_losses[:10])
    student_losses = train_steps(model, "student", 60)
    assert sum(student_losses[-10:]) < 0.8 * sum(student_losses[:10])
    x = waves(8)
    x[3, 21:24, 1] += 3.0
    scores = model.eval().channel_scores(x)
    assert scores.flatten().argmax() == scores[3, 21:24, 1].argmax() * 3 + (3 * 40 + 21) * 3 + 1


def test_change_weights_follow_the_steepest_change() -> None:
    x = torch.zeros(2, 40, 3)
    x[0, 20:, 1] = 2.0
    weights = change_weights(x, 4)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    assert weights[0].topk(2).indices.sort().values.tolist() == [4, 5]
    raised = torch.zeros(2, 40, dtype=torch.bool)
    raised[0, 0] = True
    assert change_weights(x, 4, raised)[0, 0] == change_weights(x, 4, raised)[0].max()


@pytest.mark.parametrize("weighting", ["none", "grad", "pseudo"])
def test_weightings_train_on_clean_targets(weighting: str) -> None:
    model = tiny(weighting=weighting)
    losses = train_steps(model, "teacher", 40)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert model.eval().channel_scores(waves(2)).shape == (2, 40, 3)


def test_label_margin_needs_labels_and_pushes_anomalies_away() -> None:
    model = in_student_stage(tiny(weighting="label_margin", margin=100.0, mask_ratio=0.9)).train()
    x = torch.randn(4, 40, 3)
    with pytest.raises(ValueError, match="needs training labels"):
        model.loss(batch_of(x))
    model.epoch = 100
    every = torch.ones(4, 40, dtype=torch.bool)
    assert model.loss(batch_of(x, every))["loss"] > 50.0
    assert model.loss(batch_of(x, ~every))["loss"] < 50.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 100, "patch_size": 7}, "window=100 is not a multiple of patch_size=7"),
        ({"patchify": "cnn"}, "patchify='cnn' is not one of 'linear'"),
        ({"mask_wiring": "none"}, "mask_wiring='none' is not one of 'after_encoder'"),
        ({"mask_ratio": 1.0}, r"mask_ratio=1.0 is not between 0 and 1"),
        ({"teacher_share": 0.0}, r"teacher_share=0.0 is not between"),
        ({"d_model": 18}, "d_model=18 is not a multiple of 2"),
        ({"score_groups": 11}, "score_groups=11 is not between 2 and 10"),
        ({"score": "mask_last_n", "last_n": 40}, "last_n=40 is not between 1 and 36"),
    ],
)
def test_error_says_what_is_possible(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_weights_load_into_a_fresh_object() -> None:
    model = in_student_stage(tiny()).eval()
    torch.manual_seed(9)
    fresh = MaskedAutoencoder(window=40, n_channels=3, **TINY)
    fresh.load_state_dict(model.state_dict())
    fresh.begin_stage("student", [])
    x = torch.randn(2, 40, 3)
    assert torch.equal(model.channel_scores(x), fresh.eval().channel_scores(x))


def test_instance_norm_forgives_the_level_and_keeps_the_unit_of_the_score() -> None:
    x = waves(4)
    model = in_student_stage(tiny(instance_norm=True)).eval()
    with torch.inference_mode():
        deviations = model.deviations(x)
        torch.testing.assert_close(model.deviations(x + 5.0), deviations, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(model.deviations(3 * x), 3 * deviations, rtol=1e-2, atol=1e-2)
        shown, moved = model.reconstruct(x).teacher, model.reconstruct(x + 5.0).teacher
        torch.testing.assert_close(moved, shown + 5.0, rtol=1e-3, atol=1e-3)
        plain = in_student_stage(tiny()).eval()
        assert (plain.deviations(x + 5.0) - plain.deviations(x)).abs().max() > 1.0
