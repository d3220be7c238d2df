from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from tocsin.errors import ConfigError
from tocsin.metrics import thresholds
from tocsin.metrics.thresholds import Auto, BestF1, Conformal, Fixed, Mad, MissRate, Pot, Quantile, fit_pareto

CONF = Path(__file__).parents[2] / "conf" / "threshold"
METHODS = [Auto, BestF1, Quantile, Pot, Conformal, Mad, Fixed, MissRate]
LABEL_FREE = [Quantile(), Pot(), Conformal(), Mad(), Auto()]


def autoregressive(rng, n, phi):
    from scipy.signal import lfilter

    burn_in = 1000
    return lfilter([1.0], [1.0, -phi], rng.normal(size=n + burn_in))[burn_in:]


def test_best_f1_takes_the_best_cut():
    scores = np.array([0.1, 0.2, 0.9, 0.8, 0.3])
    assert BestF1().fit(scores, np.array([0, 0, 1, 1, 0])) == 0.8


def test_quantile_leaves_its_share_above():
    scores = np.random.default_rng(0).normal(size=10_000)
    threshold = Quantile(level=0.95).fit(scores)
    assert np.mean(scores >= threshold) == pytest.approx(0.05, abs=1e-4)


def test_pot_extrapolates_an_exponential_tail():
    """Spec 8: Exp(1) at risk 1e-4 (true 9.21), n = 10 000: median 9.14, quartiles 8.7 to 9.6."""
    fits = [Pot(risk=1e-4).fit(np.random.default_rng(seed).exponential(size=10_000)) for seed in range(25)]
    assert np.median(fits) == pytest.approx(9.21, abs=0.4)
    assert np.subtract(*np.percentile(fits, [75, 25])) < 1.8


def test_pot_scales_and_shifts_with_the_scores():
    scores = np.random.default_rng(1).exponential(size=20_000)
    assert Pot().fit(1e-3 * scores - 7) == pytest.approx(1e-3 * Pot().fit(scores) - 7, abs=1e-5)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3])
def test_pareto_fit_recovers_its_parameters(shape):
    u = np.random.default_rng(2).random(20_000)
    excess = 5 * (-np.log(u) if shape == 0 else (u**-shape - 1) / shape)
    assert fit_pareto(excess) == pytest.approx((shape, 5), abs=0.15)


def test_pareto_shape_is_capped():
    u = np.random.default_rng(3).random(5000)
    assert fit_pareto((u**-1.5 - 1) / 1.5)[0] == 0.5
    # Uniform excesses have shape -1. With -0.5 the likelihood is largest where ln(2b / (2b - 1)) = 1 / b.
    assert fit_pareto(u) == (-0.5, pytest.approx(0.627, abs=0.01))


def test_pareto_falls_back_to_moments(monkeypatch):
    import scipy.stats

    def fail(*args, **kwargs):
        raise scipy.stats.FitError("no convergence")

    monkeypatch.setattr(scipy.stats.genpareto, "fit", fail)
    u = np.random.default_rng(4).random(50_000)
    assert fit_pareto(2 * (u**-0.1 - 1) / 0.1) == pytest.approx((0.1, 2), abs=0.05)


def test_pot_with_few_scores_is_the_empirical_quantile():
    scores = np.random.default_rng(5).exponential(size=2000)
    assert Pot(risk=0.01).fit(scores) == pytest.approx(np.quantile(scores, 0.99), rel=1e-6)
    many = np.random.default_rng(5).exponential(size=20_000)
    assert Pot(risk=0.001).fit(many) != pytest.approx(np.quantile(many, 0.999), rel=1e-6)


def test_conformal_is_exact_for_independent_scores():
    """Spec 8: n = 999, alpha .01 gives FPR .0099 on average."""
    rates = []
    for seed in range(400):
        scores = np.random.default_rng(seed).normal(size=2999)
        rates.append(np.mean(scores[999:] >= Conformal(alpha=0.01, thin=1).fit(scores[:999])))
    assert np.mean(rates) == pytest.approx(0.01, abs=0.001)


def test_conformal_without_thinning_fails_on_correlated_scores():
    """Spec 8: AR(1) with phi = .99, n = 999: mean FPR .058 instead of .01."""
    rates = []
    for seed in range(100):
        scores = autoregressive(np.random.default_rng(seed), 5999, phi=0.99)
        rates.append(np.mean(scores[999:] >= Conformal(alpha=0.01, thin=1).fit(scores[:999])))
    assert np.mean(rates) == pytest.approx(0.058, abs=0.02)


def test_conformal_thins_by_the_decorrelation_length():
    scores = autoregressive(np.random.default_rng(0), 50_000, phi=0.95)  # falls to 1/e in 20 steps
    step = next(k for k in range(1, 100) if np.corrcoef(scores[:-k], scores[k:])[0, 1] < np.exp(-1))
    assert 10 < step < 40
    assert Conformal().fit(scores) == Conformal(thin=step).fit(scores)
    assert Conformal().fit(scores) != Conformal(thin=step + 1).fit(scores)


def test_conformal_takes_the_rank_of_the_definition():
    scores = np.random.default_rng(1).permutation(99).astype(float)  # ceil(100 * 0.9) = 90th of 0..98
    threshold = Conformal(alpha=0.1, thin=1).fit(scores)
    assert threshold == pytest.approx(89)
    assert np.sum(scores >= threshold) == 9


def test_conformal_warns_when_too_few_scores_are_far_enough_apart():
    scores = autoregressive(np.random.default_rng(2), 999, phi=0.99)
    with pytest.warns(UserWarning, match=r"of 999 scores alpha=0\.01 needs 99, so they are 10 apart"):
        threshold = Conformal(alpha=0.01).fit(scores)
    assert threshold == pytest.approx(scores[::10].max())


def test_mad_is_robust_to_outliers():
    scores = np.random.default_rng(6).normal(5, 2, size=20_000)
    scores[:1000] = 1e6
    assert Mad(k=3).fit(scores) == pytest.approx(5 + 3 * 2, rel=0.05)


def test_auto_takes_labels_when_they_help():
    scores = np.random.default_rng(7).normal(size=20_000)
    labels = scores > 2
    auto = Auto()
    assert auto.chosen == "auto"
    assert auto.fit(scores, labels) == scores[labels].min()
    assert auto.chosen == "best_f1"
    for useless in (None, np.zeros(20_000), np.ones(20_000, bool)):
        assert auto.fit(scores, useless) == Pot().fit(scores)
        assert auto.chosen == "pot"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", LABEL_FREE, ids=lambda m: m.name)
def test_constant_scores_raise_no_alarm(method, dtype):
    for value in (0.0, -3.7, 1e-30, 1e6, 0.1):
        scores = np.full(20_000, value, dtype=dtype)
        threshold = method.fit(scores)
        assert not np.any(scores >= threshold)
        assert np.all(scores + dtype(max(abs(value), 1e-30)) * dtype(1e-5) >= threshold)


@pytest.mark.parametrize("method", LABEL_FREE, ids=lambda m: m.name)
def test_scores_with_many_ties_do_not_all_raise_an_alarm(method):
    scores = np.zeros(20_000, dtype=np.float32)
    scores[::1000] = 1
    assert np.mean(scores >= method.fit(scores)) <= 0.001


@pytest.mark.parametrize("method", LABEL_FREE, ids=lambda m: m.name)
def test_label_free_methods_ignore_labels_of_one_class(method):
    scores = np.random.default_rng(8).exponential(size=12_000)
    assert method.fit(scores, np.zeros(12_000)) == method.fit(scores)


def test_fixed_fits_nothing():
    assert Fixed(value=3).fit(np.array([np.nan])) == 3.0


@pytest.mark.parametrize("method", [*LABEL_FREE, BestF1()], ids=lambda m: m.name)
def test_non_finite_scores_are_named(method):
    labels = np.array([0, 1, 0])
    with pytest.raises(ValueError, match="1 of 3 scores are NaN or infinite, the first at index 2"):
        method.fit(np.array([1, 2, np.nan]), labels)


def test_best_f1_tells_what_to_use_instead():
    scores = np.arange(5.0)
    with pytest.raises(ValueError, match="needs labelled validation data, but there are no labels: use pot"):
        BestF1().fit(scores)
    with pytest.raises(ValueError, match="all 5 points are normal: use pot"):
        BestF1().fit(scores, np.zeros(5))
    with pytest.raises(ValueError, match="all 5 points are anomalous"):
        BestF1().fit(scores, np.ones(5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantile(level=1.0), r"level must lie between 0 and 1, got 1\.0"),
        (lambda: Pot(level=0), "level must lie between 0 and 1, got 0"),
        (lambda: Pot(risk=2), "risk must lie between 0 and 1, got 2"),
        (lambda: Pot(level=0.98, risk=0.05), r"risk must be below 1 - level = 0\.02"),
        (lambda: Conformal(alpha=0), "alpha must lie between 0 and 1, got 0"),
        (lambda: Conformal(thin=0), "thin must be 'auto' or a step of at least 1, got 0"),
        (lambda: Mad(k=0), "k must be above 0, got 0"),
        (lambda: Fixed(value=float("nan")), "value must be finite, got nan"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_conformal_needs_enough_scores():
    assert np.isfinite(Conformal(alpha=0.01, thin=1).fit(np.arange(99.0)))
    with pytest.raises(ValueError, match=r"needs at least 99 scores for alpha=0\.01, got 98"):
        Conformal(alpha=0.01, thin=1).fit(np.arange(98.0))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_conf_names_the_method_and_its_arguments(method):
    path = CONF / f"{method.name}.yaml"
    help_text, *_ = path.read_text().splitlines()
    assert help_text.startswith("# ")
    assert help_text.endswith((".", "."))
    config = OmegaConf.load(path)
    if method is Fixed:
        assert OmegaConf.missing_keys(config) == {"value"}
        config.value = 1.5
    arguments = OmegaConf.to_container(config)
    target = arguments.pop("_target_")
    assert target == f"tocsin.metrics.thresholds.{method.__name__}"
    made = getattr(thresholds, method.__name__)(**arguments)
    assert {name: getattr(made, name) for name in arguments} == arguments


def test_every_conf_is_covered():
    assert {path.stem for path in CONF.glob("*.yaml")} == {*(method.name for method in METHODS), "half"}


def test_half_is_a_fixed_threshold():
    assert OmegaConf.load(CONF / "half.yaml") == {"_target_": "tocsin.metrics.thresholds.Fixed", "value": 0.5}


def test_a_miss_rate_needs_labels_and_keeps_to_them():
    scores, labels = np.linspace(0, 1, 400), np.arange(400) >= 200
    assert (scores[labels] < MissRate(max_miss_rate=0.05).fit(scores, labels)).mean() <= 0.05
    with pytest.raises(ConfigError, match="miss_rate needs labelled anomalies"):
        MissRate().fit(scores)
