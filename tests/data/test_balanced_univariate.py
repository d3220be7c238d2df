import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tocsin.data.synthetic.balanced_univariate import TYPE_NAMES, balanced_univariate


@pytest.fixture(scope="module")
def balanced():
    return balanced_univariate(n_samples=2000, normal_ratio=None)


def test_shapes_types_and_ranges(balanced):
    assert balanced.data.shape == balanced.clean.shape == (2000, 128, 1)
    assert balanced.data.dtype == balanced.clean.dtype == np.float32
    assert balanced.point_labels.shape == (2000, 128)
    assert balanced.sample_labels.shape == balanced.severity.shape == balanced.noise_sd.shape == (2000,)
    assert balanced.type_names == TYPE_NAMES
    assert np.isfinite(balanced.data).all()
    assert np.abs(balanced.clean).max() < 10


def test_class_counts_are_exact(balanced):
    assert np.bincount(balanced.sample_labels).tolist() == [200] * 10
    by_ratio = balanced_univariate(n_samples=800, normal_ratio=0.75)
    assert np.bincount(by_ratio.sample_labels).tolist() == [600, 23, 23, 22, 22, 22, 22, 22, 22, 22]
    assert balanced_univariate(n_samples=20, normal_ratio=1.0).sample_labels.sum() == 0


def test_classes_are_shuffled(balanced):
    order = np.arange(2000)
    assert abs(np.corrcoef(order, balanced.sample_labels)[0, 1]) < 0.1


def test_point_labels_carry_the_class_of_their_sample(balanced):
    labelled = balanced.point_labels > 0
    expected = labelled * balanced.sample_labels[:, None]
    assert (balanced.point_labels == expected).all()
    assert (labelled.any(axis=1) == (balanced.sample_labels > 0)).all()


def test_series_differs_from_its_twin_only_where_labelled(balanced):
    different = balanced.data[..., 0] != balanced.clean[..., 0]
    assert not different[balanced.point_labels == 0].any()
    assert (balanced.data == balanced.clean)[balanced.sample_labels == 0].all()


def test_every_anomaly_shows_a_point_two_noise_sd_off(balanced):
    off = np.abs(balanced.data - balanced.clean)[..., 0] / balanced.noise_sd[:, None]
    anomalous = balanced.sample_labels > 0
    assert (off.max(axis=1)[anomalous] > 2).all()
    np.testing.assert_allclose(off.max(axis=1), balanced.severity, rtol=1e-3, atol=1e-3)


def test_position_alone_does_not_find_anomalies(balanced):
    truth = (balanced.point_labels > 0).ravel()
    step = np.broadcast_to(np.arange(128), (2000, 128)).ravel()
    learnt = (balanced_univariate(n_samples=2000, normal_ratio=None, seed=7).point_labels > 0).mean(axis=0)
    for score in (step, np.abs(step - 63.5), learnt[step]):
        assert 0.47 <= roc_auc_score(truth, score) <= 0.53


def test_both_signs_occur(balanced):
    change = (balanced.data - balanced.clean)[..., 0].sum(axis=1)
    for name in ("point", "level", "trend"):
        upward = (change[balanced.sample_labels == TYPE_NAMES.index(name)] > 0).mean()
        assert 0.35 < upward < 0.65, name


def test_anomalies_take_one_to_forty_percent(balanced):
    simple = (balanced.sample_labels > 0) & (balanced.sample_labels < TYPE_NAMES.index("complex"))
    steps = (balanced.point_labels > 0).sum(axis=1)[simple]
    assert steps.min() >= 1
    assert steps.max() <= 0.4 * 128


def test_level_of_a_series_is_no_giveaway(balanced):
    truth = balanced.sample_labels > 0
    spread = balanced.clean[..., 0].std(axis=1)  # of the twins: the base must not tell the class
    assert 0.45 < roc_auc_score(truth, spread) < 0.55


def test_sample_depends_on_seed_and_index_alone():
    few, many = (balanced_univariate(n_samples=n, normal_ratio=1.0) for n in (10, 50))
    np.testing.assert_array_equal(few.data, many.data[:10])
    again = balanced_univariate(n_samples=10, normal_ratio=1.0)
    np.testing.assert_array_equal(few.data, again.data)
    other = balanced_univariate(n_samples=10, normal_ratio=1.0, seed=43)
    assert not np.isclose(few.data, other.data).all(axis=1).any()


def test_noise_is_the_least_noise_sd():
    loud = balanced_univariate(n_samples=200, noise=0.3)
    assert loud.noise_sd.min() == pytest.approx(0.3)
    quiet = balanced_univariate(n_samples=200, noise=0.01)
    assert quiet.noise_sd.min() == pytest.approx(0.01)


def test_normalisation_scales_twins_alike():
    plain, scaled = (balanced_univariate(n_samples=100, normalize_per_sample=on) for on in (False, True))
    np.testing.assert_allclose(scaled.data.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.data.std(axis=1), 1, atol=1e-5)
    sd = plain.data.std(axis=1, keepdims=True)
    np.testing.assert_allclose(
        scaled.data - scaled.clean, (plain.data - plain.clean) / sd, atol=2e-4 * np.abs(plain.data / sd).max()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 0}, "n_samples is 0, but must be >= 1"),
        ({"seq_len": 31}, "seq_len is 31, but must be >= 32"),
        ({"normal_ratio": 1.2}, r"normal_ratio is 1.2, but must be in \[0, 1\], or None"),
        ({"noise": 0.0}, r"noise is 0.0, but must be in \(0, 0.5\]"),
    ],
)
def test_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        balanced_univariate(**arguments)
