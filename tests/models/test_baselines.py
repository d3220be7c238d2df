"""Baselines on windows against scikit-learn."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from torch import Tensor

from tocsin.batch import SeriesBatch
from tocsin.models.iforest import WindowIsolationForest
from tocsin.models.kmeans import WindowKMeans
from tocsin.models.pca import WindowPCA
from tocsin.models.window_baseline import WindowBaseline

WINDOW, CHANNELS, LENGTH = 24, 3, 6
BASELINES = (WindowPCA, WindowKMeans, WindowIsolationForest)


def waves(batch: int, seed: int = 0, window: int = WINDOW) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(batch, 1, 1, generator=generator) * 6.283
    time = torch.arange(window)[None, :, None] * 0.4
    clean = torch.sin(time * torch.tensor([1.0, 0.5, 2.0]) + phase)
    return clean + 0.1 * torch.randn(batch, window, CHANNELS, generator=generator)


def batch_of(x: Tensor) -> SeriesBatch:
    return SeriesBatch(x, torch.zeros(len(x), dtype=torch.int64))


def fitted(kind: type[WindowBaseline], x: Tensor, **options: object) -> WindowBaseline:
    model = kind(**{"window": x.shape[1], "n_channels": x.shape[2], "length": LENGTH, **options})  # type: ignore[arg-type]
    for part in x.split(7):
        model.collect(batch_of(part))
    model.finish()
    return model


def rows_of(x: Tensor, length: int = LENGTH) -> np.ndarray:
    """Short windows side by side, as vectors."""
    cuts = range(0, x.shape[1] - length + 1, length)
    return np.stack([window[a : a + length].reshape(-1) for window in x.numpy() for a in cuts])


def as_vectors(model: WindowBaseline, x: Tensor) -> np.ndarray:
    """Deviations of windows that are one short window each."""
    assert x.shape[1] == model.length
    return model.deviations(x).reshape(len(x), -1).numpy()


# --- scikit-learn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("explained", [0.5, 0.9])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_pca_is_what_the_leading_components_leave(explained: float, shift: float) -> None:
    train, new = waves(40) + shift, waves(9, seed=1, window=LENGTH) + shift
    model = fitted(WindowPCA, train, explained=explained)
    reference = PCA(n_components=explained, svd_solver="full").fit(rows_of(train).astype(np.float64))
    rows = rows_of(new).astype(np.float64)
    expected = rows - reference.inverse_transform(reference.transform(rows))
    assert 0 < reference.n_components_ < model.width
    np.testing.assert_allclose(as_vectors(model, new), expected**2, atol=1e-5 * (1 + shift))


def test_kmeans_is_the_way_to_the_nearest_centroid() -> None:
    train, new = waves(40), waves(9, seed=1, window=LENGTH)
    model = fitted(WindowKMeans, train, n_clusters=5, seed=3)
    reference = KMeans(n_clusters=5, n_init=3, random_state=3).fit(rows_of(train))
    distance = reference.transform(rows_of(new)).min(axis=1)
    np.testing.assert_allclose(as_vectors(model, new).sum(axis=1), distance**2, rtol=1e-4)
    closest = reference.cluster_centers_[reference.predict(rows_of(new))]
    np.testing.assert_allclose(as_vectors(model, new), (rows_of(new) - closest) ** 2, atol=1e-5)


@pytest.mark.parametrize("n_windows", [20, 90])  # fewer and more rows than a tree takes
@pytest.mark.parametrize("max_features", [0.4, 1.0])
def test_isolation_forest_scores_like_that_of_sklearn(n_windows: int, max_features: float) -> None:
    train, new = waves(n_windows), waves(30, seed=1, window=LENGTH)
    new[0] += 5
    model = fitted(WindowIsolationForest, train, n_trees=40, max_features=max_features, seed=2)
    rows = rows_of(train)
    reference = IsolationForest(
        n_estimators=40, max_samples=min(256, len(rows)), max_features=max_features, random_state=2
    ).fit(rows)
    expected = -reference.score_samples(rows_of(new))
    for step in range(LENGTH):
        np.testing.assert_allclose(model.deviations(new)[:, step, 0].numpy(), expected, rtol=1e-5)
    assert expected.argmax() == 0
    assert len(np.unique(expected)) > 20


# --- what they share ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BASELINES)
@pytest.mark.parametrize("step", [1, 4, 6])
def test_overlapping_short_windows_are_averaged(kind: type[WindowBaseline], step: int) -> None:
    model = fitted(kind, waves(20), step=step)
    x = waves(3, seed=1, window=23)  # the last short window does not lie on the stride
    total = np.zeros((3, 23, model.deviations(x).shape[-1]))
    count = np.zeros((23, 1))
    for begin in sorted({*range(0, 18, step), 17}):
        total[:, begin : begin + LENGTH] += model.deviations(x[:, begin : begin + LENGTH]).numpy()
        count[begin : begin + LENGTH] += 1
    assert count.min() >= 1
    np.testing.assert_allclose(model.deviations(x).numpy(), total / count, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", BASELINES)
def test_scores_are_squared_deviations(kind: type[WindowBaseline]) -> None:
    model, x = fitted(kind, waves(20)), waves(4, seed=1)
    expected = model.deviations(x).numpy() ** 2
    np.testing.assert_allclose(model.channel_scores(x).numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(model.point_scores(x).numpy(), expected.mean(axis=-1), rtol=1e-5)


@pytest.mark.parametrize("kind", BASELINES)
def test_fresh_object_with_the_same_state_scores_alike(kind: type[WindowBaseline]) -> None:
    model, x = fitted(kind, waves(20)), waves(4, seed=1)
    fresh = kind(window=WINDOW, n_channels=CHANNELS, length=LENGTH)  # type: ignore[call-arg]
    assert not torch.equal(fresh.deviations(x), model.deviations(x))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.deviations(x), model.deviations(x))
    assert torch.equal(fresh.loss(batch_of(x))["loss"], model.loss(batch_of(x))["loss"])


@pytest.mark.parametrize("kind", BASELINES)
def test_loss_is_one_on_what_was_learned_and_more_on_what_was_not(kind: type[WindowBaseline]) -> None:
    train = waves(40, window=LENGTH)
    model = fitted(kind, train)
    usual = float(model.loss(batch_of(train))["loss"])
    assert usual == pytest.approx(1.0, rel=1e-4)
    assert float(model.loss(batch_of(train + 3))["loss"]) > 1.2


@pytest.mark.parametrize("kind", BASELINES)
def test_batches_of_training_do_not_matter(kind: type[WindowBaseline]) -> None:
    x = waves(21)
    whole = kind(window=WINDOW, n_channels=CHANNELS, length=LENGTH)  # type: ignore[call-arg]
    whole.collect(batch_of(x))
    whole.finish()
    assert torch.equal(whole.deviations(x), fitted(kind, x).deviations(x))


@pytest.mark.parametrize("kind", BASELINES)
def test_short_windows_are_cut_to_the_window(kind: type[WindowBaseline]) -> None:
    model = fitted(kind, waves(40, window=8), length=100, step=100)
    assert (model.length, model.step) == (8, 8)
    assert torch.isfinite(model.deviations(waves(2, window=8))).all()


def test_rows_beyond_the_limit_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    original: Callable[[WindowPCA, Tensor], None] = WindowPCA.fit
    monkeypatch.setattr(WindowPCA, "fit", lambda self, rows: (seen.append(rows), original(self, rows)))
    x = torch.arange(100 * LENGTH * CHANNELS, dtype=torch.float32).reshape(100, LENGTH, CHANNELS)
    fitted(WindowPCA, x, max_rows=12)
    (rows,) = seen
    numbers = (rows[:, 0] / (LENGTH * CHANNELS)).tolist()  # which of the 100 rows
    assert numbers == [float(int(i * 99 / 11)) for i in range(12)]


def test_fewer_windows_than_clusters_says_what_to_do() -> None:
    with pytest.raises(
        ValueError, match=r"model\.n_clusters=10, but there are only 8 training windows; set it"
    ):
        fitted(WindowKMeans, waves(2))
