"""The acceptance tests of specification 9.4 on seed 42, at the default length."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d
from scipy.stats import skew
from sklearn.metrics import roc_auc_score

from tocsin.data.synthetic.server_load import CHANNELS, CPU, LATENCY, NET, QUEUE, REQUESTS, RESOLUTION
from tocsin.data.synthetic.server_metrics import TYPE_NAMES, server_metrics
from tocsin.data.synthetic.server_schedule import ANOMALY_TYPES, DURATIONS, MIN_GAP
from tocsin.metrics.vus import vus

DAY = 1440
COUPLED = [
    ("requests", "cpu"),
    ("requests", "net"),
    ("requests", "disk_io"),
    ("requests", "memory"),
    ("cpu", "latency"),
    ("cpu", "queue"),
    ("latency", "error_rate"),
]
STANDS_OUT = {
    "point_spike",
    "level_shift",
    "trend",
    "memory_leak",
    "noise_burst",
    "saturation",
    "cascade",
}
# max|z| on the types that stay inside the normal range, measured on seed 42, +- .04: (easy, medium, hard)
INSIDE_RANGE = {
    "contextual": (0.829, 0.548, 0.533),
    "frequency_change": (0.563, 0.537, 0.518),
    "amplitude_change": (0.566, 0.566, 0.527),
    "correlation_break": (0.585, 0.561, 0.549),
    "flatline": (0.519, 0.487, 0.436),
}
SEVERITIES = ("easy", "medium", "hard")


@pytest.fixture(scope="module", params=SEVERITIES)
def metrics(request):
    return server_metrics(severity=request.param)


@pytest.fixture(scope="module")
def medium():
    return server_metrics()


@pytest.fixture(scope="module")
def short():
    return server_metrics(total_length=50_000, contamination=0.02)


def severity_of(data):
    return data.series.events.severity.iloc[0]


def auc_by_type(data, score):
    """Point ROC-AUC of each type's test points against the normal test points."""
    kinds, score = data.type_ids[data.test_start :], score[data.test_start :]
    kept = {name: (kinds == 0) | (kinds == i) for i, name in enumerate(TYPE_NAMES) if i}
    return {name: roc_auc_score(kinds[keep] > 0, score[keep]) for name, keep in kept.items()}


def max_z(data):
    values = data.series.values.astype(np.float64)
    train = values[: data.train_end]
    return np.abs((values - train.mean(axis=0)) / train.std(axis=0)).max(axis=1)


def autocorrelation(values, lag):
    centred = values - values.mean(axis=0)
    return (centred[lag:] * centred[:-lag]).mean(axis=0) / centred.var(axis=0)


# ---- normal data


def test_coupled_channels_correlate_beyond_the_daily_profile(medium):
    values = medium.clean.astype(np.float64)
    minute = np.arange(len(values)) % DAY
    counts = np.bincount(minute)[:, None]
    profile = np.stack([np.bincount(minute, column) for column in values.T], axis=1) / counts
    raw, rest = np.corrcoef(values.T), np.corrcoef((values - profile[minute]).T)
    for first, second in COUPLED:
        pair = CHANNELS.index(first), CHANNELS.index(second)
        assert raw[pair] >= 0.5, (first, second)
        assert rest[pair] >= 0.3, (first, second)


def test_autocorrelation_is_that_of_server_metrics(medium):
    values = medium.clean.astype(np.float64)
    next_minute, next_day, half_day = (autocorrelation(values, lag) for lag in (1, DAY, DAY // 2))
    assert (next_minute >= 0.6).all()
    assert (next_minute <= 0.99).all()
    assert (next_day > 0.3).all()
    assert (next_day > half_day).all()  # a peak, not a slow decay


def test_latency_is_skewed(medium):
    assert skew(medium.clean[:, LATENCY]) > 1


def test_no_two_days_are_alike(medium):
    days = medium.clean[: len(medium.clean) // DAY * DAY, REQUESTS].reshape(-1, DAY)
    correlation = np.corrcoef(days - days.mean(axis=0))
    assert (correlation - np.eye(len(days))).max() < 0.95
    assert len(np.unique(days, axis=0)) == len(days)


def test_physical_bounds_and_resolution(metrics):
    for values in (metrics.series.values, metrics.clean):
        assert np.isfinite(values).all()
        assert values.min() >= 0
        percent = values[:, [CHANNELS.index(c) for c in ("cpu", "memory", "error_rate")]]
        assert percent.max() <= 100
        ticks = values.astype(np.float64) / RESOLUTION
        np.testing.assert_allclose(ticks, np.round(ticks), atol=2e-2)


def test_hard_negatives_of_each_kind_are_labelled_normal(medium):
    counts = medium.hard_negatives.type.value_counts()
    assert set(counts.index) == {"deploy", "batch_job", "flash_crowd", "gc_sawtooth", "regime_change"}
    assert counts.min() >= 20
    assert not medium.series.labels[: medium.test_start].any()


def test_flash_crowds_move_requests_cpu_net_and_latency_together(medium):
    crowds = medium.hard_negatives.query("type == 'flash_crowd' and start > 200")
    clean = medium.clean.astype(np.float64)
    rise = [clean[s + 10 : s + 20].mean(axis=0) - clean[s - 30 : s].mean(axis=0) for s in crowds.start]
    for channel in (REQUESTS, CPU, NET, LATENCY):
        assert (np.array(rise)[:, channel] > 0).mean() > 0.9


def test_readings_are_missing_now_and_then_and_filled(medium):
    assert medium.missing.mean() == pytest.approx(0.0005, rel=0.1)
    rows, columns = np.nonzero(medium.missing)
    np.testing.assert_array_equal(
        medium.series.values[rows, columns], medium.series.values[rows - 1, columns]
    )


# ---- labels and events


def test_every_type_comes_often_enough_within_the_ratio(metrics):
    events = metrics.series.events
    assert (events.type.value_counts().reindex(ANOMALY_TYPES) >= 15).all()
    assert (events.start >= metrics.test_start).all()
    assert 0.045 <= metrics.series.labels.mean() <= 0.05


def test_events_and_labels_tell_the_same(metrics):
    expected = np.zeros(len(metrics.type_ids), dtype=int)
    touched = np.zeros_like(metrics.channel_labels)
    for event in metrics.series.events.itertuples():
        expected[event.start : event.end] = TYPE_NAMES.index(event.type)
        touched[event.start : event.end, list(event.channels)] = True
        low, high = DURATIONS[event.type]
        assert low <= event.end - event.start <= high
    np.testing.assert_array_equal(metrics.type_ids, expected)
    np.testing.assert_array_equal(metrics.series.labels, expected > 0)
    assert (metrics.channel_labels <= touched).all()
    np.testing.assert_array_equal(metrics.channel_labels.any(axis=1), metrics.series.labels)


def test_events_keep_their_distance(metrics):
    events = metrics.series.events
    gaps = events.start.to_numpy()[1:] - events.end.to_numpy()[:-1]
    assert gaps.min() >= MIN_GAP


def test_values_change_where_labelled_and_nowhere_else(metrics):
    changed = metrics.series.values != metrics.clean
    assert not (changed & ~metrics.channel_labels).any() or _only_refilled(metrics, changed)
    for event in metrics.series.events.itertuples():
        assert changed[event.start : event.end].any(axis=0)[list(event.channels)].all(), event.type


def _only_refilled(data, changed):
    """A lost reading right after an event repeats the event's last value."""
    stray = changed & ~data.channel_labels
    return bool(data.missing[stray].all())


def test_transition_marks_borders_and_hides_no_event(metrics):
    inside = metrics.transition & metrics.series.labels
    for event in metrics.series.events.itertuples():
        assert metrics.transition[[event.start - 2, event.start - 1, event.end, event.end + 1]].all()
        assert not inside[event.start : event.end].all()
    assert metrics.transition.sum() <= 8 * len(metrics.series.events)


# ---- what simple detectors may and may not find


def test_max_z_finds_what_the_severity_says(metrics):
    severity = severity_of(metrics)
    low, high = {"easy": (0.9, 1.0), "medium": (0.6, 0.85), "hard": (0.0, 0.65)}[severity]
    found = auc_by_type(metrics, max_z(metrics))
    for name in STANDS_OUT:
        assert low <= found[name] <= high, name
    for name, pinned in INSIDE_RANGE.items():
        assert found[name] == pytest.approx(pinned[SEVERITIES.index(severity)], abs=0.04), name
    assert found["correlation_break"] <= 0.6
    assert STANDS_OUT | INSIDE_RANGE.keys() == set(ANOMALY_TYPES)


def _design(values, channel):
    """Powers of the other channels, and 1."""
    others = np.delete(values, channel, axis=1)
    return np.column_stack([np.ones(len(values)), others, np.sqrt(others), others**2 / 100])


def test_knowing_the_coupling_finds_correlation_breaks(metrics):
    values = metrics.series.values.astype(np.float64)
    train, test = values[: metrics.train_end : 5], values[metrics.test_start :]
    score = np.zeros(len(values))
    for channel in (REQUESTS, CPU, NET, LATENCY, QUEUE):
        weights = np.linalg.lstsq(_design(train, channel), train[:, channel], rcond=None)[0]
        spread = (train[:, channel] - _design(train, channel) @ weights).std()
        residual = uniform_filter1d(test[:, channel] - _design(test, channel) @ weights, 15)
        score[metrics.test_start :] = np.maximum(score[metrics.test_start :], np.abs(residual) / spread)
    assert auc_by_type(metrics, score)["correlation_break"] >= 0.85


def test_smoothness_gives_away_flatlines_only(metrics):
    values = metrics.series.values.astype(np.float64)
    change = uniform_filter1d(np.abs(np.diff(values, axis=0, prepend=values[:1])), 21, axis=0)
    found = auc_by_type(metrics, -(change / change[: metrics.train_end].mean(axis=0)).min(axis=1))
    assert found.pop("flatline") >= 0.8
    assert max(found.values()) <= 0.65, found


def test_time_alone_finds_nothing(metrics):
    truth = metrics.series.labels[metrics.test_start :]
    step = np.arange(len(truth))
    hour = (step + metrics.test_start) % DAY // 60
    half = len(truth) // 2
    by_hour = np.bincount(hour[:half], truth[:half], 24) / np.bincount(hour[:half])
    assert 0.45 <= roc_auc_score(truth, step) <= 0.55
    assert 0.45 <= roc_auc_score(truth, np.abs(step - half)) <= 0.55
    assert 0.45 <= roc_auc_score(truth[half:], by_hour[hour[half:]]) <= 0.55


def test_random_score_has_the_vus_pr_of_chance(medium, record_property):
    truth = medium.series.labels[medium.test_start :]
    found = vus(np.random.default_rng(0).random(len(truth)), truth).pr
    record_property("random_vus_pr", found)
    assert truth.mean() <= found <= 2.5 * truth.mean()  # buffers around events credit chance


# ---- arguments


def test_same_seed_same_series_and_other_seed_another(short):
    again = server_metrics(total_length=50_000, contamination=0.02)
    np.testing.assert_array_equal(short.series.values, again.series.values)
    assert short.series.events.equals(again.series.events)
    other = server_metrics(total_length=50_000, contamination=0.02, seed=43)
    assert (short.series.values != other.series.values).mean() > 0.5


def test_severity_and_contamination_leave_the_healthy_machine_as_it_is(short):
    other = server_metrics(total_length=50_000, severity="hard")
    np.testing.assert_array_equal(short.clean, other.clean)


def test_short_series_spread_events_over_all_types(short):
    events = short.series.events
    assert set(events[events.start >= short.test_start].type) == set(ANOMALY_TYPES)
    share = short.series.labels[short.test_start :].sum() / len(short.type_ids)
    assert 0.01 <= share <= 0.05


def test_contamination_reaches_train_but_not_validation(short):
    labels = short.series.labels
    assert 0.005 < labels[: short.train_end].mean() <= 0.02
    assert not labels[short.train_end : short.test_start].any()


def test_little_contamination_takes_part_of_the_types():
    data = server_metrics(total_length=50_000, contamination=0.005)
    in_train = data.series.events.query("start < @data.train_end")
    assert 1 <= len(in_train) < len(ANOMALY_TYPES)
    assert 0 < data.series.labels[: data.train_end].mean() <= 0.005


def test_series_is_complete(short):
    series = short.series
    assert series.values.shape == (50_000, 8)
    assert series.values.dtype == np.float32
    assert series.channel_names == CHANNELS
    assert (np.diff(series.timestamps) == np.timedelta64(60, "s")).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"severity": "mild"}, "severity is 'mild', but must be one of easy, medium, hard"),
        ({"anomaly_ratio": 0.1}, r"anomaly_ratio is 0.1, but must be in \[0.01, 0.05\]"),
        ({"contamination": 0.03}, r"contamination is 0.03, but must be in \[0, 0.02\]"),
        ({"train_fraction": 1.0}, r"train_fraction is 1.0, but must be in \(0, 1\)"),
        ({"val_fraction": 0.6}, r"val_fraction is 0.6, but must be in \[0, 1 - train_fraction\)"),
        ({"total_length": 5000}, "total_length is 5000, but train_fraction of it must be >= 2880 steps"),
        ({"total_length": 15_000}, "total_length leaves 7500 test steps, at most 750 of them anomalous"),
    ],
)
def test_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        server_metrics(**arguments)
