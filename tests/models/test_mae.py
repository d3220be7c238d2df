import pytest
import torch
from torch import Tensor

from tocsin.batch import SeriesBatch
from tocsin.models.channel_masks import groups_of_channels
from tocsin.models.mae import MaskedAutoencoder
from tocsin.models.mae_losses import change_weights, push_apart
from tocsin.models.patchify import Masked, build_patchify, from_patches, spread_groups, to_patches

TINY = {"d_model": 16, "n_heads": 2, "feedforward": 32, "encoder_layers": 1, "teacher_layers": 2}


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


@pytest.mark.parametrize("training", [False, True])  # a norm over the batch would show in training
@pytest.mark.parametrize(
    ("patchify", "leaks"), [("linear", False), ("patch_cnn", False), ("cnn_first", True)]
)
def test_patch_changes_only_its_own_token(patchify: str, leaks: bool, training: bool) -> None:
    torch.manual_seed(0)
    embed = build_patchify(patchify, 3, 4, 16, "flatten").train(training)
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


@pytest.mark.parametrize("unit", ["channel", "both"])
def test_output_of_a_hidden_channel_does_not_depend_on_its_values(unit: str) -> None:
    model = in_student_stage(tiny(mask_unit=unit, channel_groups=3)).eval()
    with torch.no_grad():  # the path of detail begins at 0
        for weight in (model.detail.linear.weight, model.detail.head[1].weight):
            torch.nn.init.normal_(weight, std=0.1)
    x = torch.randn(2, 40, 3)
    hidden = torch.tensor([[True, False, False], [False, False, True]])
    changed = torch.where(hidden[:, None], x + 1.0, x)
    shown = torch.where(hidden[:, None], x, x + 1.0)
    before, after, other = (
        model._decode("channel", model._masked("channel", one, hidden, 0), student=True)
        for one in (x, changed, shown)
    )
    for one, same, different in zip(before, after, other, strict=True):
        assert torch.equal(one, same)
        assert not torch.allclose(one, different)


def test_groups_of_channels_hide_each_channel_once() -> None:
    for channels, groups in ((2, 8), (3, 2), (8, 8), (38, 8)):
        masks = groups_of_channels(channels, groups)
        assert masks.shape == (min(channels, groups), channels)
        assert masks.sum(dim=0).tolist() == [1] * channels
        assert masks.sum(dim=1).max() - masks.sum(dim=1).min() <= 1
        assert not masks.all(dim=1).any()  # something is left to tell from


@pytest.mark.parametrize(("ratio", "n_masked"), [(0.4, 10), (0.01, 1), (0.99, 24)])
def test_share_of_the_patches_is_hidden_in_every_window_at_random(ratio: float, n_masked: int) -> None:
    model = tiny(window=100, patch_size=4, mask_ratio=ratio)
    masked = model._random_mask("patch", torch.zeros(200, 100, 3))
    assert masked.mask.sum(dim=1).tolist() == [n_masked] * 200
    assert masked.mask.any(dim=0).all()
    assert len(masked.mask.unique(dim=0)) > 15


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


@pytest.mark.parametrize("unit", ["patch", "channel"])
def test_losses_are_means_over_hidden_points_and_channels(unit: str) -> None:
    model = tiny(schedule="joint", distill_weight=0.3, mask_unit=unit).eval()
    x = torch.randn(4, 40, 3)
    made = model.reconstruct(x)  # every value as it looked while it was hidden, once
    terms = model.loss(batch_of(x))
    torch.testing.assert_close(terms["rec"], (made.teacher - x).square().mean())
    torch.testing.assert_close(terms["disc"], (made.teacher - made.student).square().mean())
    torch.testing.assert_close(terms["loss"], terms["rec"] + 0.3 * terms["disc"])
    phases = tiny(mask_unit=unit).eval()
    first = phases.loss(batch_of(x))
    assert set(first) == {"loss", "rec"}
    assert first["loss"] == first["rec"]
    second = in_student_stage(phases).loss(batch_of(x))
    assert second["loss"] == second["disc"] > 0


@pytest.mark.parametrize("wiring", ["after_encoder", "before_encoder"])
def test_student_loss_reaches_only_the_student(wiring: str) -> None:
    model = in_student_stage(tiny(mask_wiring=wiring)).train()
    model.loss(batch_of(torch.randn(4, 40, 3)))["loss"].backward()
    own = {id(p) for p in model.trainable("student")}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in own), name
        assert (id(parameter) in own) == name.startswith("student"), name


@pytest.mark.parametrize("unit", ["patch", "channel"])
def test_joint_student_term_gives_no_gradient_to_encoder_and_teacher(unit: str) -> None:
    x = torch.randn(4, 40, 3)
    grads = []
    for weight in (0.0, 5.0):
        model = tiny(
            schedule="joint", warmup_epochs=0, distill_weight=weight, dropout=0.0, mask_unit=unit
        ).train()
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


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_pasted_anomalies_are_in_the_input_alone(probability: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(weighting="pseudo", pseudo_probability=probability).train()
    x = waves(200)
    seen: list[Tensor] = []

    def perfect(unit: str, masked: Masked, *, student: bool) -> tuple[Tensor, None]:
        seen.append(masked.x)
        pasted = (masked.x != x).any(dim=-1, keepdim=True).float()
        return torch.cat([to_patches(x, 4), to_patches(pasted, 4)], dim=-1), None

    monkeypatch.setattr(model, "_decode", perfect)
    loss = model.loss(batch_of(x))["loss"]
    touched = (seen[0] != x).flatten(1).any(dim=1).float().mean()
    assert abs(float(touched) - probability) < 0.1
    assert loss < 1e-3  # the clean windows and the map of what was pasted are the target
    monkeypatch.setattr(model, "_decode", lambda *a, **k: (perfect(*a, **k)[0] + 1.0, None))
    torch.testing.assert_close(model.loss(batch_of(x))["loss"], torch.tensor(1.0), rtol=1e-2, atol=0)


def test_nothing_is_pasted_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(weighting="pseudo", pseudo_probability=1.0).eval()
    seen: list[Tensor] = []
    decode = model._decode
    monkeypatch.setattr(
        model, "_decode", lambda unit, masked, **k: seen.append(masked.x) or decode(unit, masked, **k)
    )
    x = waves(4)
    model.loss(batch_of(x))
    assert torch.equal(seen[0], x.repeat_interleave(len(model.masks), dim=0))


def test_margin_term_grows_over_the_epochs() -> None:
    d, odd = torch.tensor([[0.2, 0.2, 0.9]]), torch.tensor([[False, True, True]])
    torch.testing.assert_close(push_apart(d, odd, 0.5, 0.25), torch.tensor([[0.2, 0.075, 0.0]]))
    model = in_student_stage(tiny(weighting="label_margin", margin=100.0, margin_warmup_epochs=10)).eval()
    every = torch.ones(4, 40, dtype=torch.bool)
    losses = []
    for epoch in (0, 4, 9, 50):
        model.epoch = epoch
        losses.append(float(model.loss(batch_of(waves(4), every))["loss"].detach()))
    assert losses == pytest.approx([losses[2] * share for share in (0.1, 0.5, 1.0, 1.0)], rel=0.05)


def test_label_margin_needs_labels_and_pushes_anomalies_away() -> None:
    model = in_student_stage(tiny(weighting="label_margin", margin=100.0, mask_ratio=0.9)).train()
    x = torch.randn(4, 40, 3)
    with pytest.raises(ValueError, match="needs training labels"):
        model.loss(batch_of(x))
    assert torch.isfinite(model.eval().loss(batch_of(x))["loss"])  # validation data need none
    model.train()
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
