import time

import pytest
import torch
from torch import Tensor

from tocsin.batch import ImageBatch
from tocsin.models.draem import Draem, map_score
from tocsin.models.draem_sevnet import DraemSevNet

PARAMETERS = {"draem_sevnet": 97_680_774}  # of any height and width

SMALL_OPTIONS = {
    "draem_sevnet": [
        "++model.recon_width=8",
        "++model.disc_width=8",
        "++model.n_textures=14",
        "++model.score=topk_mean",
        "++model.anomaly_probability=0.8",
        "++model.warmup=0",
    ]
}

TINY = {"recon_width": 2, "disc_width": 8, "n_textures": 14, "warmup": 0.0}


def images(n: int, *, seed: int = 0, size: tuple[int, int] = (32, 32)) -> Tensor:
    """Smooth pictures that differ in one number, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    y, x = (torch.arange(side) / side for side in size)
    level = 0.3 + 0.3 * torch.rand(n, 1, 1, generator=generator) * x + 0.2 * y[:, None]
    tint = torch.tensor([1.0, 0.8, 0.6])[:, None, None]
    return level[:, None] * tint + 0.002 * torch.randn(n, 3, *size, generator=generator)


def batch_of(x: Tensor) -> ImageBatch:
    return ImageBatch(x, torch.arange(len(x)))


def tiny(**changes: object) -> DraemSevNet:
    torch.manual_seed(0)
    model = DraemSevNet(**{**TINY, **changes})
    model.prepare([batch_of(images(16))])
    return model


# --- target -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["contrast_area", "contrast", "blend_area", "amplitude"])
@pytest.mark.parametrize("anomaly", ["perlin", "cutpaste"])
def test_true_severity_fills_its_range_and_is_zero_for_normal_images(target: str, anomaly: str) -> None:
    model = tiny(severity_target=target, anomaly=anomaly)
    synthetic = model.synthesis(images(300, seed=2) / model.unit, torch.arange(1_000, 1_300))
    severity = model.true_severity(synthetic)
    odd = synthetic.mask.flatten(1).any(dim=1)
    assert float(severity[~odd].max()) == 0
    assert float(severity.min()) >= 0
    assert 0.8 < float(severity.max()) <= 1
    assert float((severity == 1).float().mean()) < 0.05  # hardly any is cut off
    assert float(severity[odd].std()) > 0.1


def test_a_stronger_fault_has_a_higher_target_up_to_any_strength() -> None:
    """With a clamp at 1, as in the original, strengths above some level would look and count the same."""
    model = tiny(anomaly="cutpaste", amplitude=3.0)
    x = images(64)
    found = [
        model.true_severity(model.synthesis(x / model.unit, torch.arange(64), torch.full((64,), level)))
        for level in (0.25, 0.5, 0.75, 1.0)
    ]
    rising = torch.stack(found).diff(dim=0) > 0
    assert float(rising.float().mean()) > 0.9
    assert float(torch.stack(found).mean(dim=1).diff().min()) > 0.05


# --- loss ---------------------------------------------------------------------------------------------------


def test_loss_joins_the_severity_at_its_weight() -> None:
    model, batch = tiny(severity_weight=0.3, dropout=0.0).eval(), batch_of(images(12))
    plain = Draem(recon_width=2, disc_width=8, n_textures=14).eval()
    own = {key: value for key, value in model.state_dict().items() if key in plain.state_dict()}
    plain.load_state_dict(own)
    with torch.no_grad():
        terms, draem = model.loss(batch), plain.loss(batch)
        torch.testing.assert_close(terms["loss"], draem["loss"] + 0.3 * terms["severity"])
        synthetic = model.synthetic(batch)
        error = (model.head(model.compare(synthetic.image)[2]) - model.true_severity(synthetic)).abs()
        smooth = torch.where(error < 0.1, error**2 / 0.2, error - 0.05).mean()
        torch.testing.assert_close(terms["severity"], smooth)


def test_weight_is_warmed_up_by_optimizer_steps_in_training_and_full_in_evaluation() -> None:
    model, batch = tiny(warmup=0.1, severity_weight=0.5, dropout=0.0), batch_of(images(4))
    model.total_steps = 100  # as the task says
    seen = []
    for step in range(14):
        seen.append(float(model.severity_weight_now))
        if step < 2:
            model.loss(batch)  # batches whose gradients are accumulated do not count
            model.loss(batch)
        model.after_step()
    assert seen == pytest.approx([0.05 * min(step, 10) for step in range(14)])
    fresh = tiny(warmup=0.1, severity_weight=0.5)
    assert float(fresh.eval().severity_weight_now) == 0.5
    resumed = DraemSevNet(**{**TINY, "warmup": 0.2})
    resumed.total_steps = 100
    resumed.load_state_dict(model.state_dict())
    assert float(resumed.severity_weight_now) == pytest.approx(0.5 * 14 / 20)


def test_severity_trains_the_encoder_unless_it_is_detached() -> None:
    for detach in (False, True):
        model = tiny(detach_features=detach)
        model.loss(batch_of(images(4)))["severity"].backward()
        first = model.discriminative.encoder[0][0].weight
        assert (first.grad is None) == detach
        assert all(p.grad is not None for p in model.head.parameters())


@pytest.mark.parametrize("pooling", ["gap", "spatial_aware"])
def test_gradient_reaches_every_parameter(pooling: str) -> None:
    model = tiny(pooling=pooling, dropout=0.0)
    for seed in range(3):
        model.loss(batch_of(images(6, seed=seed)))["loss"].backward()
    dead = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_validation_loss_is_repeatable() -> None:
    model, batch = tiny().eval(), batch_of(images(8))
    with torch.no_grad():
        assert model.loss(batch) == model.loss(batch)
    model.train()
    assert model.loss(batch)["severity"] != model.loss(batch)["severity"]


def test_bfloat16_gives_finite_terms_in_full_precision() -> None:
    model = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model.loss(batch_of(images(4)))
        scores = model.eval().image_scores(images(2))
    assert {value.dtype for value in (*terms.values(), *scores.values())} == {torch.float32}
    assert all(torch.isfinite(value).all() for value in (*terms.values(), *scores.values()))


# --- scores -------------------------------------------------------------------------------------------------


def test_scores_by_their_sources() -> None:
    model, x = tiny(fusion="mean").eval(), images(3, size=(31, 40))
    with torch.no_grad():
        scores, found = model.image_scores(x), model.score(x)
        torch.testing.assert_close(
            scores["mask"], map_score(found.map, "avgpool_max")
        )  # DRAEM's own, not the maximum
        torch.testing.assert_close(scores["fused"], (scores["mask"] + scores["severity"]) / 2)
        torch.testing.assert_close(scores["severity"], model.severity(x))
        torch.testing.assert_close(found.image, scores["fused"])
        assert found.map.shape == (3, 31, 40)


@pytest.mark.parametrize("fusion", ["logistic", "calibrated"])
def test_fusion_is_fitted_on_normal_validation_images_and_kept(fusion: str) -> None:
    model = tiny(fusion=fusion).eval().requires_grad_(False)
    batches = [batch_of(images(40, seed=3)), ImageBatch(images(40, seed=4), torch.arange(40, 80))]
    before = model.score(images(4))
    model.finalize(iter(batches))
    after = model.score(images(4))
    assert not torch.allclose(after.image, before.image)
    torch.testing.assert_close(after.map, before.map)
    fresh = DraemSevNet(**TINY, fusion=fusion).eval()
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh.score(images(4)).image, after.image, rtol=0, atol=0)
    again = tiny(fusion=fusion).eval()
    again.finalize(batches)
    assert torch.equal(again.score(images(4)).image, after.image)  # always the same synthetic anomalies
    if fusion == "calibrated":
        normal = torch.cat([model.image_scores(batch.image)["fused"] for batch in batches])
        assert float(normal.mean()) == pytest.approx(0.5, abs=0.05)


def test_severity_head_costs_little_beside_the_networks() -> None:
    """One pass gives map and severity. The head alone is timed, as the difference of two passes is mostly noise."""
    torch.manual_seed(0)
    model = DraemSevNet(recon_width=32, disc_width=16, n_textures=14).eval()
    x = images(2, size=(128, 128))

    def seconds(work: object) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    with torch.no_grad():
        features = model.compare(x)[2]
        whole, head = seconds(lambda: model.score(x)), seconds(lambda: model.head(features))
    assert head < 0.02 * whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"severity_target": "size"}, "severity_target='size' is not one of 'contrast_area'"),
        ({"severity_weight": -1.0}, "severity_weight=-1.0 is not at least 0"),
        ({"warmup": 1.5}, r"warmup=1.5 is not in \[0, 1\]"),
        ({"fusion": "sum"}, "fusion='sum' is not one of 'mean'"),
        ({"pooling": "max"}, "pooling='max' is not one of"),
    ],
)
def test_error_says_what_is_possible(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DraemSevNet(**{**TINY, **changes})


# --- learning -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_learns_to_rank_severities() -> None:
    model = tiny(
        disc_width=24, score="topk_mean", fusion="logistic"
    )  # anomalies are small in images this small
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (300 - step) / 200)
        loss = model.loss(batch_of(images(16, seed=step)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
    model.eval()
    x = images(48, seed=1_000)
    report = model.report(x)
    assert report.spearman > 0.8
    assert report.mean_error < 0.15
    assert report.predicted[-1] > report.predicted[0] + 0.1
    assert float((report.predicted.diff() > -0.02).float().mean()) == 1.0  # rises with the level
    model.finalize([batch_of(x)])
    scores = model.image_scores(model.synthetic(batch_of(images(64, seed=2_000))).image * model.unit)
    odd = model.synthetic(batch_of(images(64, seed=2_000))).mask.flatten(1).any(dim=1)
    for name, score in scores.items():
        right = (score[odd][:, None] > score[~odd]).float().mean()  # the area under the ROC curve
        assert float(right) > (0.8 if name == "fused" else 0.7), name
