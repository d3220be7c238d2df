"""Windows against naive slicing, and folding as their exact inverse."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.array_utils import byte_bounds

from tocsin.data.windows import OverlapFold, WindowDataset, fill_unscored, window_starts

REDUCTIONS = ("mean", "max", "last")


def series(n_steps: int = 60, n_channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n_steps, n_channels)).astype(np.float32)


def dataset(values: np.ndarray, window: int, stride: int, labels: np.ndarray | None = None) -> WindowDataset:
    starts = window_starts([len(values)], window, stride)
    return WindowDataset(
        values=values, starts=starts, window=window, transform=lambda x: x * 2 + 1, labels=labels
    )


def fold(scores: np.ndarray, starts: np.ndarray, n_steps: int, reduce: str, batch: int) -> np.ndarray:
    folding = OverlapFold(n_steps=n_steps, window=scores.shape[1], reduce=reduce)
    batches = range(0, len(starts), batch)
    return np.concatenate([folding.push(scores[i : i + batch], starts[i : i + batch]) for i in batches])


def brute_force(scores: np.ndarray, starts: np.ndarray, n_steps: int, reduce: str) -> np.ndarray:
    """One step, one score and one window at a time."""
    n_windows, window, n_scores = scores.shape
    result = np.full((n_steps, n_scores), np.nan)
    for step in range(n_steps):
        for k in range(n_scores):
            covering = [
                (step - starts[w], scores[w, step - starts[w], k])  # place in the window, score
                for w in range(n_windows)
                if 0 <= step - starts[w] < window and not np.isnan(scores[w, step - starts[w], k])
            ]
            if not covering:
                continue
            found = [score for _, score in covering]
            if reduce == "last":
                result[step, k] = max(covering)[1]
            else:
                result[step, k] = np.mean(found) if reduce == "mean" else np.max(found)
    return result


# --- starts -------------------------------------------------------------------------------------------------


def test_starts_fit_into_each_series_and_never_cross_a_border() -> None:
    starts = window_starts([10, 7], window=4, stride=3)
    assert starts.tolist() == [0, 3, 6, 10, 13]
    assert starts.dtype == np.int64


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_cover_reaches_the_last_step_of_each_series(stride: int) -> None:
    lengths, window = [11, 4, 9], 4
    covered = np.zeros(sum(lengths), dtype=int)
    starts = window_starts(lengths, window, stride, cover=True)
    for start in starts:
        covered[start : start + window] += 1
    assert covered.all()
    assert (np.diff(starts) > 0).all()
    for begin, end in pairwise(np.cumsum([0, *lengths])):
        assert (begin <= starts).any()
        assert not ((starts < end) & (starts + window > end)).any()


def test_too_short_series_names_itself_and_the_fix() -> None:
    with pytest.raises(ValueError, match=r"series 1 has 3 steps, fewer than data\.window=4; set .* to 3"):
        window_starts([10, 3], window=4, stride=1)


# --- windows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("picked", [[0], [3, 1, 7], list(range(8))])
def test_batch_equals_naive_slices(picked: list[int]) -> None:
    values, labels = series(), np.random.default_rng(1).random(60) < 0.3
    windows = dataset(values, window=20, stride=5, labels=labels)
    batch = windows.__getitems__(picked)
    assert batch.labels is not None
    for row, number in enumerate(picked):
        begin = 5 * number
        np.testing.assert_array_equal(batch.x[row].numpy(), values[begin : begin + 20] * 2 + 1)
        np.testing.assert_array_equal(batch.labels[row].numpy(), labels[begin : begin + 20])
        assert batch.start[row] == begin
    assert batch.x.shape == (len(picked), 20, 3)
    assert len(windows) == 9


def test_one_window_is_a_batch_of_one() -> None:
    windows = dataset(series(), window=20, stride=5)
    one = windows[2]
    assert one.x.shape == (1, 20, 3)
    assert one.labels is None
    np.testing.assert_array_equal(one.x, windows.__getitems__([2]).x)


@pytest.mark.parametrize("stride", [1, 5])
def test_windows_take_no_more_memory_than_the_series(stride: int) -> None:
    values = series()
    windows = dataset(values, window=20, stride=stride)
    low, high = byte_bounds(windows._windows)
    assert high - low == values.nbytes


def test_memory_map_is_not_read_into_memory(tmp_path: Path) -> None:
    values = series()
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    windows = dataset(mapped, window=20, stride=5)
    assert np.shares_memory(windows._windows, mapped)
    np.testing.assert_array_equal(windows.__getitems__([1, 4]).x[1], values[20:40] * 2 + 1)


# --- folding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("stride", [1, 2, 3, 5, 7, 8])
@pytest.mark.parametrize("batch", [1, 4, 1000])
def test_folding_is_the_inverse_of_cutting(reduce: str, stride: int, batch: int) -> None:
    lengths, window = [41, 8, 30], 8
    known = series(sum(lengths), 2)
    starts = window_starts(lengths, window, stride, cover=True)
    windows = WindowDataset(values=known, starts=starts, window=window, transform=np.array)
    scores = windows.__getitems__(range(len(windows))).x.numpy()
    folded = fold(scores, starts, len(known), reduce, batch)
    np.testing.assert_allclose(folded, known, rtol=1e-6)
    assert folded.dtype == np.float32


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("batch", [1, 5, 1000])
def test_folding_of_scores_that_differ_equals_brute_force(reduce: str, stride: int, batch: int) -> None:
    rng = np.random.default_rng(2)
    lengths, window = [27, 14], 8
    starts = window_starts(lengths, window, stride, cover=True)
    scores = rng.normal(size=(len(starts), window, 3)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = np.nan  # not scored by this window
    scores[:, :2] = np.nan  # nor by any, at the head of each series
    folded = fold(scores, starts, sum(lengths), reduce, batch)
    expected = brute_force(scores, starts, sum(lengths), reduce)
    np.testing.assert_allclose(folded, expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(folded[:2]).all()
    assert np.isfinite(folded).any()


def test_extreme_scores_survive_folding() -> None:
    starts = window_starts([30], 8, 3, cover=True)
    scores = np.random.default_rng(0).normal(size=(len(starts), 8, 1)).astype(np.float32)
    for reduce in REDUCTIONS:
        plain = fold(scores, starts, 30, reduce, 4)
        np.testing.assert_allclose(fold(scores + 1e4, starts, 30, reduce, 4), plain + 1e4, rtol=1e-5)
        np.testing.assert_allclose(fold(scores * 1e30, starts, 30, reduce, 4), plain * 1e30, rtol=1e-5)


def test_folding_holds_no_more_than_the_open_windows() -> None:
    starts = window_starts([1000], 8, 2)
    folding = OverlapFold(n_steps=1000, window=8, reduce="mean")
    for start in starts[:-1]:
        folding.push(np.zeros((1, 8, 1)), np.array([start]))
        assert len(folding._value) <= 8


def test_unknown_reduction_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="reduce='median' is not one of mean, max, last"):
        OverlapFold(n_steps=10, window=4, reduce="median")


# --- steps without a score ----------------------------------------------------------------------------------


def test_unscored_steps_take_the_nearest_score_of_their_own_series() -> None:
    nan = np.nan
    scores = np.array([nan, nan, 1, nan, 2, nan, 7, nan, nan], dtype=np.float32)[:, None]
    filled = fill_unscored(scores, np.array([0, 5, 9]))
    assert filled[:, 0].tolist() == [1, 1, 1, 1, 2, 7, 7, 7, 7]
    assert np.isnan(scores[0, 0])  # the argument is left alone


def test_series_without_any_score_stays_unscored() -> None:
    scores = np.array([np.nan, np.nan, 3.0])[:, None]
    filled = fill_unscored(scores, np.array([0, 2, 3]))
    assert np.isnan(filled[:2]).all()
    assert filled[2, 0] == 3


def test_complete_scores_pass_without_a_copy() -> None:
    scores = series()
    assert fill_unscored(scores, np.array([0, 60])) is scores
