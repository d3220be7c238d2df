import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tocsin.models.score_fusion import FUSIONS, ScoreFusion


def scores(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed))


def fitted(fusion: str) -> ScoreFusion:
    """Anomalies are seen in the first and, less so, in the second score; the third is the reverse."""
    made = ScoreFusion(fusion=fusion, weight=0.5)
    label = torch.arange(400) % 2 == 0
    x = (scores(400) + label[:, None] * torch.tensor([0.6, 0.3, -0.6])).clamp(0, 1)
    made.fit(0.5 * scores(300, 1), x, label)
    return made


def test_fixed_rules_are_what_they_say() -> None:
    x = torch.tensor([[0.2, 0.6, 0.9], [0.8, 0.1, 0.0]])
    expected = {"mean": [0.4, 0.45], "weighted": [0.5, 0.275], "max": [0.6, 0.8]}
    for fusion, values in expected.items():
        made = ScoreFusion(fusion=fusion, weight=0.75)
        torch.testing.assert_close(made(x), torch.tensor(values))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("fit", [False, True])
def test_more_evidence_never_lowers_the_alarm(fusion: str, fit: bool) -> None:
    made = fitted(fusion) if fit else ScoreFusion(fusion=fusion, weight=0.3)
    for column in range(3):
        x = scores(50)[:, None].repeat(1, 41, 1)  # (50, 41, 3)
        x[..., column] = torch.linspace(0, 1, 41)
        found = made(x.flatten(0, 1)).reshape(50, 41)
        assert (found.diff(dim=1) >= -1e-6).all()
        if column == 0:
            assert (found[:, -1] > found[:, 0]).all()


def test_logistic_fusion_is_the_regression_where_no_weight_is_negative() -> None:
    made = ScoreFusion(fusion="logistic", weight=0.5)
    label = scores(2_000, 3)[:, 0] < 0.5
    x = (0.5 * scores(2_000) + label[:, None] * torch.tensor([0.2, 0.1, 0.05])).clamp(0.01, 0.99)
    made.fit(x, x, label)
    # scikit-learn sums the losses and halves the ridge: C = 1 / (2 * ridge * M)
    reference = LogisticRegression(C=1 / (2 * 1e-2 * 2_000), tol=1e-8).fit(x.logit().numpy(), label.numpy())
    assert (reference.coef_ > 0).all()
    coefficients = torch.from_numpy(reference.coef_[0]).float()
    torch.testing.assert_close(made.weights, coefficients, rtol=1e-2, atol=1e-2)
    assert float(made.bias) == pytest.approx(float(reference.intercept_[0]), abs=0.02)


def test_a_score_that_points_the_wrong_way_gets_no_weight() -> None:
    weights = fitted("logistic").weights
    assert float(weights[2]) == 0
    assert float(weights[0]) > float(weights[1]) > 0


def test_calibrated_fusion_is_the_share_of_normal_images_below() -> None:
    made = ScoreFusion(fusion="calibrated", weight=0.5)
    normal = scores(1_000) ** 3
    made.fit(normal, normal, torch.zeros(1_000, dtype=torch.bool))
    x = scores(100, 5) * normal.amax(dim=0)
    below = (normal[None, :, :2] < x[:, None, :2]).float().mean(dim=1).mean(dim=1)
    torch.testing.assert_close(made(x), below, atol=0.01, rtol=0)


def test_beyond_all_normal_images_calibrated_scores_still_rank() -> None:
    made = ScoreFusion(fusion="calibrated", weight=0.5)
    normal = 0.2 * scores(100)
    made.fit(normal, normal, torch.zeros(100, dtype=torch.bool))
    found = made(torch.tensor([[0.5, 0.5, 0.0], [0.6, 0.5, 0.0], [0.9, 0.9, 0.0]]))
    assert (found.diff() > 0.1).all()
    assert (found > 1).all()


def test_normal_images_that_all_score_the_same_do_not_break_it() -> None:
    made = ScoreFusion(fusion="calibrated", weight=0.5)
    made.fit(torch.zeros(10, 3), torch.zeros(10, 3), torch.zeros(10, dtype=torch.bool))
    found = made(torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]))
    assert torch.isfinite(found).all()
    assert float(found[1]) > float(found[0])


def test_what_was_fitted_is_in_the_checkpoint() -> None:
    for fusion in ("logistic", "calibrated"):
        fresh = ScoreFusion(fusion=fusion, weight=0.5)
        assert not torch.equal(fresh(scores(20)), fitted(fusion)(scores(20)))
        fresh.load_state_dict(fitted(fusion).state_dict())
        assert torch.equal(fresh(scores(20)), fitted(fusion)(scores(20)))


def test_error_says_what_is_possible() -> None:
    with pytest.raises(ValueError, match="fusion='sum' is not one of 'mean'"):
        ScoreFusion(fusion="sum", weight=0.5)
    with pytest.raises(ValueError, match=r"severity_share=1.5 is not in \[0, 1\]"):
        ScoreFusion(fusion="weighted", weight=1.5)
