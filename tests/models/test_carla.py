import logging

import pytest
import torch
from torch import Tensor

from tocsin.batch import SeriesBatch
from tocsin.models.carla import Carla
from tocsin.models.carla_injection import KINDS, LEAST_SD, MIN_DEVIATION, inject_negatives
from tocsin.models.carla_parts import (
    ResidualBlock,
    consistency,
    entropy,
    inconsistency,
    mine_neighbours,
    occlude,
    triplet_loss,
)
from tocsin.models.losses import focal_cross_entropy

# The contract test reads this number: of model=carla with windows of 60 steps and 3 channels.
PARAMETERS = {"carla": 9_106}

WINDOW = 40


def small(**changes: object) -> Carla:
    torch.manual_seed(0)
    return Carla(**{"window": WINDOW, "n_channels": 2, **changes})


def sines(batch: int, seed: int = 0, window: int = WINDOW, n_channels: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(batch, 1, 1, generator=generator) * 6.283
    time = torch.arange(window)[None, :, None] * 0.5
    clean = torch.sin(time + phase + torch.arange(n_channels))
    return clean + 0.05 * torch.randn(batch, window, n_channels, generator=generator)


def batches(n: int, step: int = 5, size: int = 16) -> list[SeriesBatch]:
    """Windows that begin `step` after each other."""
    return [SeriesBatch(sines(size, seed=i), (torch.arange(size) + i * size) * step) for i in range(n)]


def ready_to_classify(model: Carla, data: list[SeriesBatch]) -> Carla:
    model.prepare(data)
    model.begin_stage("classification", data)
    return model.train()


def train(
    model: Carla, stage: str, data: list[SeriesBatch], epochs: int = 1, lr: float = 5e-3
) -> list[float]:
    model.stage = stage
    model.begin_stage(stage, data)
    model.train()
    optimizer = torch.optim.Adam(list(model.trainable(stage)), lr=lr)
    losses = []
    for batch in data * epochs:
        loss = model.loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


# --- injection ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [8, 30, 100, 300])
@pytest.mark.parametrize("n_channels", [1, 2, 8])
def test_injection_changes_its_span_only_and_always_something(window: int, n_channels: int) -> None:
    x = sines(400, window=window, n_channels=n_channels)
    before = x.clone()
    out, mask, kind = inject_negatives(x, torch.Generator().manual_seed(1))
    assert torch.equal(x, before)
    assert torch.equal(out[~mask], x[~mask])
    assert ((out != x).flatten(1).any(dim=1)).all()
    touched = mask.any(dim=1)
    assert touched.sum(dim=1).amin() >= 1
    assert touched.sum(dim=1).amax() <= max(1, n_channels // 2)
    assert sorted(kind.unique().tolist()) == list(range(len(KINDS)))
    steps = mask.any(dim=2)
    assert torch.equal(mask, steps[:, :, None] & touched[:, None])  # one span for all chosen channels
    borders = steps.diff(dim=1).sum(dim=1) + steps[:, -1]  # an onset, and an end or the border
    assert not steps[:, 0].any()
    assert (borders == 2).all()


def test_injection_is_no_copy_on_flat_windows() -> None:
    out, mask, kind = inject_negatives(torch.zeros(400, 60, 3), torch.Generator().manual_seed(1))
    assert (out != 0).flatten(1).any(dim=1).all()
    assert (out[~mask] == 0).all()
    assert KINDS.index("seasonal") not in kind  # a faster flat line is a flat line


def test_kinds_of_injection_do_what_they_say() -> None:
    x = torch.sin(torch.arange(120) * 0.3)[None, :, None].expand(600, -1, -1).contiguous()
    out, mask, kind = inject_negatives(x, torch.Generator().manual_seed(2))
    length, start = mask[:, :, 0].sum(dim=1), mask[:, :, 0].long().argmax(dim=1)
    change = (out - x)[:, :, 0]
    shift = kind == KINDS.index("shift")
    assert ((start + length)[shift] == 120).all()
    assert change[shift][:, -1].abs().min() >= 0.25
    assert (change[shift] < -0.2).any()
    assert (change[shift] > 0.2).any()
    assert (length[kind == KINDS.index("global")] == 3).all()
    assert (length[kind == KINDS.index("contextual")] == 5).all()
    between = (length[~shift] > 5) & (length[~shift] >= 12) & (length[~shift] <= 108)
    assert (between | (length[~shift] <= 5)).all()
    for row in (kind == KINDS.index("shapelet")).nonzero().flatten()[:20]:
        part = out[row, start[row] : start[row] + length[row], 0]
        offset = part - x[row, start[row], 0]
        assert (part == part[0]).all()
        assert 0 <= offset[0] <= 0.1
    for row in (kind == KINDS.index("seasonal")).nonzero().flatten()[:20]:
        first, size = int(start[row]), int(length[row])
        part = out[row, first : first + size, 0]
        copies = [x[row, first : first + size, 0].repeat(rate)[::rate] for rate in (2, 3, 4)]
        assert any(torch.equal(part, copy) for copy in copies)


def test_points_grow_away_from_their_local_mean() -> None:
    sign = 1.0 - 2.0 * (torch.arange(100) % 2)
    x = (50.0 + sign)[None, :, None].expand(300, -1, -1)  # eight times the value would be 400
    out, mask, kind = inject_negatives(x, torch.Generator().manual_seed(2))
    for name, factor in (("global", 8.0), ("contextual", 3.0)):
        rows = kind == KINDS.index(name)
        size = (out - 50.0)[rows][mask[rows]].abs()
        assert (size - factor).abs().max() < 0.15 * factor
    quiet, mask, kind = inject_negatives(torch.full((300, 100, 1), 50.0), torch.Generator().manual_seed(2))
    points = (quiet - 50.0)[kind == KINDS.index("contextual")].abs().amax(dim=1)
    torch.testing.assert_close(points, torch.full_like(points, MIN_DEVIATION * LEAST_SD), rtol=1e-3, atol=0)


def test_injection_is_fresh_in_training_and_fixed_in_evaluation() -> None:
    x = sines(16)
    assert not torch.equal(inject_negatives(x).x, inject_negatives(x).x)
    batch = SeriesBatch(x, torch.arange(16))
    model = small().eval()
    assert model.loss(batch)["loss"] == model.loss(batch)["loss"]
    model.train()
    assert model.loss(batch)["loss"] != model.loss(batch)["loss"]


# --- network ------------------------------------------------------------------------------------------------


def test_channels_are_not_interleaved() -> None:
    model = small(n_channels=3).eval()
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.point_scores(torch.arange(3.0).expand(2, WINDOW, 3))
    assert torch.equal(seen[0], torch.arange(3.0)[None, :, None].expand(2, 3, WINDOW))


def test_block_adds_its_input_after_the_last_activation() -> None:
    block = ResidualBlock(4, 4).eval()
    x = torch.randn(2, 4, 30)
    with torch.no_grad():
        for name, parameter in block.convolve.named_parameters():
            if name.endswith("weight") and parameter.dim() == 3:
                parameter.zero_()
    assert torch.equal(block(x), x)  # negative values too
    assert ResidualBlock(3, 5)(torch.randn(2, 3, 7)).shape == (2, 5, 7)


@pytest.mark.parametrize("window", [8, 31, 128, 300])
@pytest.mark.parametrize("scale", ["train", "instance", "both"])
def test_any_window_is_scored_between_0_and_1(window: int, scale: str) -> None:
    x = 100.0 * torch.randn(4, window, 2)
    for localise in ("window", "cam", "occlusion"):
        scores = small(window=window, scale=scale, localise=localise).eval().point_scores(x)
        assert scores.shape == (4, window)
        assert scores.min() >= 0.0
        assert scores.max() <= 1.0


@pytest.mark.parametrize("normal_classes", ["majority", "mostly_original"])
def test_score_is_one_minus_the_probability_of_the_normal_classes(normal_classes: str) -> None:
    model = small(n_classes=4, normal_classes=normal_classes).eval()
    model.original_share.copy_(torch.tensor([0.1, 0.5, 0.3, 0.1]))
    model.twin_share.copy_(torch.tensor([0.3, 0.2, 0.1, 0.4]))
    x = sines(5)
    normal = [1] if normal_classes == "majority" else [1, 2]
    expected = 1.0 - model._classify(x)[:, normal].sum(dim=1)
    torch.testing.assert_close(model.point_scores(x), expected[:, None].expand(-1, WINDOW))
    assert expected.std() > 0


def test_instance_scale_forgets_the_level_and_size_of_a_window() -> None:
    x = sines(4)
    moved = 3.0 * x + 5.0
    for scale, same in (("instance", True), ("both", False), ("train", False)):
        model = small(scale=scale).eval()
        assert torch.allclose(model.point_scores(x), model.point_scores(moved), atol=1e-3) == same


# --- losses and neighbours ----------------------------------------------------------------------------------


def test_triplet_loss_by_hand() -> None:
    anchor = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    positive = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    negatives = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    # squared distances: positives 0 and 2; hardest negatives 2 and 0
    loss = triplet_loss(anchor, positive, negatives, torch.tensor(1.0), 0.5)
    assert loss == pytest.approx((0.0 + (1.0 + 4.0 - 0.0)) / 2)


def test_embedding_has_unit_length_and_half_as_many_numbers_as_there_are_features() -> None:
    model = small().eval()
    x = sines(6)
    assert model._features(x).shape == (6, 8, WINDOW)  # 4 -> 8 -> 8, as published
    embedding = model._embed(x)
    assert embedding.shape == (6, 4)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(6))


def test_consistency_is_0_only_for_one_hot_agreement() -> None:
    one_hot = torch.eye(3)
    assert consistency(one_hot, one_hot) == 0.0
    assert inconsistency(one_hot, one_hot.roll(1, dims=0)) == 0.0
    assert consistency(one_hot, one_hot.roll(1, dims=0)) > 10.0
    assert inconsistency(one_hot, one_hot) > 10.0
    soft = torch.full((3, 3), 1 / 3)
    assert consistency(soft, soft) == pytest.approx(1.0986, abs=1e-3)  # agreement alone is not enough
    assert entropy(soft[0]) == pytest.approx(1.0986, abs=1e-3)
    assert entropy(one_hot[0]) == pytest.approx(0.0, abs=1e-6)
    nearly = torch.tensor([[0.99, 0.01, 0.0]])
    assert consistency(nearly, one_hot[:1]) == pytest.approx(0.01005, abs=1e-4)


def test_focal_and_smoothed_losses_are_those_of_two_outcomes() -> None:
    p, q = torch.randn(2, 7, 4).softmax(dim=-1)
    same = (p * q).sum(dim=1)
    logits = torch.stack([(1 - same).log(), same.log()], dim=1)  # another class, the same
    for options in ({"gamma": 2.0}, {"label_smoothing": 0.2}, {"gamma": 1.5, "label_smoothing": 0.1}):
        for found, outcome in ((consistency, 1), (inconsistency, 0)):
            expected = focal_cross_entropy(logits, torch.full((7,), outcome), **options).mean()
            torch.testing.assert_close(found(p, q, **options), expected)
    one_hot = torch.eye(3, requires_grad=True)
    assert consistency(one_hot, one_hot, gamma=0.5) == 0.0
    inconsistency(one_hot, one_hot, gamma=0.5, label_smoothing=0.1).backward()
    assert torch.isfinite(one_hot.grad).all()


@pytest.mark.parametrize("options", [{}, {"focal_gamma": 2.0}, {"label_smoothing": 0.2}])
def test_classification_loss_weighs_its_terms(options: dict[str, float]) -> None:
    data = batches(2)
    model = ready_to_classify(small(w_inconsistency=0.7, w_entropy=3.0, **options), data)
    plain = ready_to_classify(small(), data)
    model.stage = plain.stage = "classification"
    torch.manual_seed(5)
    terms = model.loss(data[0])
    torch.manual_seed(5)
    as_published = plain.loss(data[0])
    weighed = terms["consistency"] + 0.7 * terms["inconsistency"] - 3.0 * terms["entropy"]
    torch.testing.assert_close(terms["loss"].detach(), weighed)
    torch.testing.assert_close(terms["entropy"], as_published["entropy"])
    for name in ("consistency", "inconsistency"):
        assert torch.allclose(terms[name], as_published[name], rtol=1e-3) == (not options), name


def test_neighbours_are_drawn_at_each_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = batches(2)
    model = ready_to_classify(small(), data)
    model.stage = "classification"
    seen: list[Tensor] = []
    monkeypatch.setattr(
        model, "_classify", lambda x: seen.append(x) or torch.full((len(x), 10), 0.1, requires_grad=True)
    )
    for _ in range(60):
        model.loss(data[0])
    anchors, near, far = torch.stack(seen).chunk(3, dim=1)  # (visits, B, T, C) each

    def rows(windows: Tensor) -> list[int]:
        return [
            int((model._repository == window).flatten(1).all(dim=1).long().argmax()) for window in windows
        ]

    visited = rows(anchors[:, 3])
    assert set(visited) == {3, 3 + 32}  # the window or its twin
    for row in set(visited):
        at = torch.tensor([one == row for one in visited])
        assert set(rows(near[at, 3])) == set(model.near[row].tolist())
        assert set(rows(far[at, 3])) == set(model.far[row].tolist())


def test_neighbours_of_each_row_are_its_own() -> None:
    torch.manual_seed(0)
    rows = torch.randn(50, 4)
    rows[30] = rows[7]  # the planted duplicate
    rows[40] = rows[8] + 1e-5  # a product of matrices would lose it
    near, far = mine_neighbours(rows, 5, chunk=16)
    assert near[7, 0] == 30
    assert near[30, 0] == 7
    assert near[8, 0] == 40
    for row in range(50):
        distance = (rows - rows[row]).square().sum(dim=1)
        others = distance[torch.arange(50) != row].sort().values
        assert row not in near[row]
        torch.testing.assert_close(distance[near[row]], others[:5])
        torch.testing.assert_close(distance[far[row]], others[-5:].flip(0))
    assert mine_neighbours(rows[:3], 5)[0].shape == (3, 2)


# --- positives and the repository ---------------------------------------------------------------------------


def test_repository_holds_each_window_once_in_order_of_time() -> None:
    data = batches(4)
    model, other = small(), small()
    model.prepare([*data, *data])  # an epoch of several passes
    other.prepare(reversed(data))
    assert model._starts.tolist() == [5 * i for i in range(64)]
    assert torch.equal(model._repository[:64], torch.cat([batch.x for batch in data]))
    assert torch.equal(model._repository, other._repository)  # a resumed run shuffles differently
    twins = model._repository[64:]
    assert (twins != model._repository[:64]).flatten(1).any(dim=1).all()
    few = small(max_windows=10)
    few.prepare(data)
    assert few._starts.tolist() == [5 * i for i in (0, 7, 14, 21, 28, 35, 42, 49, 56, 63)]


def test_positive_is_one_of_the_windows_just_before() -> None:
    data = batches(4, step=10)  # windows of 40 steps: three earlier ones overlap
    model = small(previous=2)
    model.prepare(data)
    x, start = data[1].x, data[1].start
    windows = torch.cat([batch.x for batch in data])
    seen = set()
    for _ in range(20):
        positives = model._positives(SeriesBatch(x, start), None)
        distance = (positives[:, None] - windows[None]).flatten(2).abs().amax(dim=2)
        offset = torch.arange(16, 32) - distance.argmin(dim=1)
        assert distance.amin() == 0.0
        seen |= set(offset.tolist())
    assert seen == {1, 2}


def test_positive_is_a_noisy_copy_where_no_earlier_window_is_of_the_same_series() -> None:
    data = batches(4, step=WINDOW)  # independent series, end to end
    model = small()
    model.prepare(data)
    noise = model._positives(data[1], None) - data[1].x
    assert 0.005 < noise.std() < 0.02
    model.prepare(batches(4, step=10))
    first = SeriesBatch(data[0].x, torch.zeros(16, dtype=torch.int64))
    assert (model._positives(first, None) - first.x).std() < 0.02
    noise = model.eval()._positives(data[1], torch.Generator()) - data[1].x
    assert 0.005 < noise.std() < 0.02  # steps of the validation split are not those of training


# --- stages -------------------------------------------------------------------------------------------------


def test_margin_decays_only_as_released_and_never_in_evaluation() -> None:
    batch = batches(1)[0]
    for mode, decays in (("fixed", False), ("decay", True)):
        model = small(margin_mode=mode)
        model.eval().loss(batch)
        assert model.current_margin == 1.0
        model.train()
        first = float(model.loss(batch)["loss"].detach())
        assert model.current_margin == pytest.approx(max(0.01, 1.0 - 0.1 * first * decays))
        for _ in range(40):
            loss = model.loss(batch)["loss"]
        loss.backward()
        assert (model.current_margin < 1.0) == decays
        assert model.current_margin >= 0.01 - 1e-6
        assert model.eval().loss(batch)["margin"] == 1.0


def test_second_stage_goes_on_with_the_encoder_of_the_first() -> None:
    data = batches(4)
    model = small()
    model.prepare(data)
    train(model, "pretext", data)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    embeddings = model._embed(model._repository)
    model.begin_stage("classification", data)
    after = model.state_dict()
    for name, value in before.items():
        if name.startswith(("encoder", "projection")):
            assert torch.equal(value, after[name]), name
    near, far = mine_neighbours(embeddings.detach(), 5)
    assert torch.equal(model.near, near)
    assert torch.equal(model.far, far)


def test_batch_norms_keep_their_statistics_in_the_second_stage() -> None:
    data = batches(2)
    model = small()
    statistics = model.encoder[0].convolve[2].running_mean
    train(model, "pretext", data)
    before = statistics.clone()
    assert (before != 0).any()
    model.prepare(data)
    train(model, "classification", data)
    assert torch.equal(statistics, before)
    assert model.classifier.training
    model.begin_stage("pretext", data)
    assert model.encoder[0].convolve[2].training


def test_each_stage_trains_the_encoder_and_its_own_head() -> None:
    model = small()
    shared = {id(p) for p in model.encoder.parameters()}
    heads = {"pretext": model.projection, "classification": model.classifier}
    for stage, head in heads.items():
        wanted = shared | {id(p) for p in head.parameters()}
        assert {id(p) for p in model.trainable(stage)} == wanted


def test_classification_needs_its_neighbours() -> None:
    model = small()
    model.stage = "classification"
    with pytest.raises(RuntimeError, match="begin_stage"):
        model.loss(batches(1)[0])


def test_resumed_run_has_its_neighbours_without_mining_again() -> None:
    data = batches(4)
    model = ready_to_classify(small(), data)
    resumed = small()
    resumed.load_state_dict(model.state_dict())
    resumed.stage = "classification"
    resumed.train()
    resumed.prepare(data[::-1])
    torch.manual_seed(3)
    expected = model.loss(data[2])["loss"]
    torch.manual_seed(3)
    assert torch.equal(resumed.loss(data[2])["loss"], expected)


def test_windows_that_were_not_kept_stand_for_the_one_before() -> None:
    model = ready_to_classify(small(max_windows=10), batches(4))
    assert model.near.shape == (20, 5)
    assert torch.isfinite(model.loss(batches(4)[3])["loss"])
    assert torch.isfinite(model.loss(SeriesBatch(sines(4), torch.tensor([-9, 0, 3, 9999])))["loss"])


def test_evaluation_loss_asks_whether_the_score_knows_injected_anomalies() -> None:
    model = ready_to_classify(small(n_classes=2), batches(2)).eval()
    batch = batches(1)[0]
    with torch.no_grad():
        model.classifier.weight.zero_()
        for bias, score in ((torch.tensor([50.0, 0.0]), 0.0), (torch.tensor([0.0, 50.0]), 1.0)):
            model.classifier.bias.copy_(bias)  # one class for all
            found = model.loss(batch)
            assert found["score"] == pytest.approx(score)
            assert found["twin_score"] == pytest.approx(score)
            assert found["loss"] > 6.0
        model.classifier.bias.zero_()
        assert model.loss(batch)["loss"] == pytest.approx(0.6931, abs=1e-3)


# --- classes and scores -------------------------------------------------------------------------------------


def test_normal_class_is_that_of_original_windows() -> None:
    model = small(n_classes=3)
    model.original_share.copy_(torch.tensor([0.2, 0.5, 0.3]))
    model.twin_share.copy_(torch.tensor([0.9, 0.1, 0.0]))  # with these, class 0 would be first
    assert model._is_normal().tolist() == [False, True, False]
    model.normal_classes = "mostly_original"
    assert model._is_normal().tolist() == [False, True, True]


def test_histogram_follows_the_votes_of_windows_and_twins() -> None:
    model = small(n_classes=3)
    votes = torch.eye(3)[torch.tensor([1, 1, 1, 2, 0, 0, 0, 0])]  # windows, then twins
    for _ in range(200):
        model._remember(votes, torch.arange(8) >= 4)
    torch.testing.assert_close(model.original_share, torch.tensor([0.0, 0.75, 0.25]), atol=1e-3, rtol=0)
    torch.testing.assert_close(model.twin_share, torch.tensor([1.0, 0.0, 0.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.25, 0.25, 0.25, 0.25], "no majority class"),
        ([0.0, 1.0, 0.0, 0.0], "all in one class"),
        ([0.1, 0.7, 0.1, 0.1], None),
    ],
)
def test_collapse_is_told_once(
    shares: list[float], message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    model = small(n_classes=4)
    votes = torch.eye(4)[torch.multinomial(torch.tensor(shares), 4000, replacement=True)]
    model._remember(votes, torch.zeros(4000, dtype=torch.bool))
    with caplog.at_level(logging.WARNING):
        model.eval()
        model.train()
        model.eval()
    assert len(caplog.records) == (message is not None)
    if message is not None:
        assert message in caplog.text
        assert "entropy" in caplog.text


@pytest.mark.parametrize("localise", ["cam", "occlusion"])
def test_largest_score_of_a_window_is_the_score_of_the_window(localise: str) -> None:
    x = sines(8)
    by_window, by_step = (small(localise=name).eval().point_scores(x) for name in ("window", localise))
    torch.testing.assert_close(by_step.amax(dim=1), by_window[:, 0])
    assert (by_window == by_window[:, :1]).all()
    assert (by_step.std(dim=1) > 0).any()
    saturated = small(localise=localise).eval()
    with torch.no_grad():
        saturated.classifier.bias[0] = 1e4  # certainly normal: nothing to divide by
    assert (saturated.point_scores(x) == 0).all()


@pytest.mark.parametrize("window", [8, 31, 128])
def test_occlusion_hides_each_step_behind_a_line(window: int) -> None:
    line = torch.arange(window).float()[None, :, None] * torch.tensor([1.0, -2.0])
    hidden, same = occlude(line, 4)
    assert (hidden.sum(dim=0) >= 1).all()
    torch.testing.assert_close(
        same[:, 1:-1], line[:, None].expand(-1, 2, -1, -1)
    )  # a line hides nothing of a line
    x = sines(3, window=window)
    x[:, window // 2] += 9.0
    hidden, others = occlude(x, 4)
    assert torch.equal(others[:, hidden == 0], x[:, None].expand_as(others)[:, hidden == 0])
    shows = (others[0, :, :, 0] > 5.0).any(dim=1)
    assert torch.equal(shows, hidden[:, window // 2] == 0)


def test_occlusion_finds_the_step_that_makes_the_score() -> None:
    class Spiky(Carla):
        def _features(self, x: Tensor) -> Tensor:
            return (x.abs().amax(dim=2) > 5.0).float()[:, None].expand(-1, 8, -1)  # (B, F, T)

    torch.manual_seed(0)
    model = Spiky(window=WINDOW, n_channels=2, localise="occlusion", segments=10)
    with torch.no_grad():
        model.classifier.weight.zero_()[1] = 50.0
    x = sines(4)
    x[torch.arange(4), torch.tensor([3, 11, 22, 38]), 1] += 9.0
    found = model.eval().point_scores(x).argmax(dim=1)
    assert (found - torch.tensor([3, 11, 22, 38])).abs().max() <= 4


@pytest.mark.parametrize(
    "changes",
    [
        {"n_classes": 4},
        {"normal_classes": "mostly_original"},
        {"n_classes": 4, "focal_gamma": 1.0, "label_smoothing": 0.05},
    ],
    ids=["majority", "mostly_original", "focal_and_smoothed"],
)
def test_score_tells_held_out_injected_anomalies_on_sines(changes: dict[str, object]) -> None:
    model = small(mid_channels=8, **changes)
    data = batches(12, size=32)
    model.prepare(data)
    train(model, "pretext", data, epochs=3)
    train(model, "classification", data, epochs=3, lr=2e-3)
    normal = sines(200, seed=1_000)
    odd = inject_negatives(sines(200, seed=2_000), torch.Generator().manual_seed(77)).x
    scores = model.eval().point_scores(torch.cat([normal, odd])).amax(dim=1)
    above = (scores[200:, None] > scores[None, :200]).float() + 0.5 * (
        scores[200:, None] == scores[None, :200]
    )
    assert above.mean() > 0.9


def test_losses_are_float32_under_autocast() -> None:
    data = batches(2)
    model = small(scale="both")
    model.prepare(data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for stage in ("pretext", "classification"):
            model.stage = stage
            model.begin_stage(stage, data)
            terms = model.train().loss(data[0])
            assert terms["loss"].dtype == torch.float32
            terms["loss"].backward()
            assert all(torch.isfinite(p.grad).all() for p in model.trainable(stage) if p.grad is not None)
        assert model.eval().point_scores(data[0].x).dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 7}, "window=7 is not a number of at least 8"),
        ({"n_classes": 1}, "n_classes=1 is not a number of at least 2"),
        ({"segments": 1}, "segments=1 is not a number of at least 2"),
        ({"neighbours": 0}, "neighbours=0 is not a number of at least 1"),
        ({"tau": 0.0}, "tau=0.0 is not above 0"),
        ({"w_entropy": -1.0}, "w_entropy=-1.0 is not 0 or more"),
        ({"focal_gamma": -1.0}, "focal_gamma=-1.0 is not 0 or more"),
        ({"label_smoothing": 1.0}, r"label_smoothing=1.0 is not in \[0, 1\)"),
        ({"pretext_share": 1.0}, "pretext_share=1.0 is not between 0 and 1"),
        ({"margin_mode": "none"}, "margin_mode='none' is not one of 'fixed', 'decay'"),
        ({"localise": "step"}, "localise='step' is not one of 'window', 'cam'"),
        ({"scale": "own"}, "scale='own' is not one of 'train'"),
        ({"normal_classes": "all"}, "normal_classes='all' is not one of 'majority'"),
    ],
)
def test_error_says_what_is_possible(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)
