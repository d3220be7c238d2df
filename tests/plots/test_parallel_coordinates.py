"""Where the lines of the picture of options run."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from tocsin.plots.parallel_coordinates import MAX_BANDS, parallel_coordinates
from tocsin.plots.save import save


def lines(figure) -> tuple[np.ndarray, np.ndarray]:
    """(N, P, 2) points of the lines and (N, 4) colours; the first collection, the second is the scale."""
    collection = next(c for c in figure.axes[0].collections if isinstance(c, LineCollection))
    return np.stack(collection.get_segments()), collection.get_colors()


def heights(figure, axis: int) -> np.ndarray:
    points, _ = lines(figure)
    at = np.argmin(np.abs(points[0, :, 0] - axis))
    return points[:, at, 1]


def test_lines_of_a_word_stay_in_its_band_in_the_order_of_the_metric() -> None:
    metric = np.array([0.1, 0.9, 0.5, 0.3])
    figure = parallel_coordinates({"norm": ["a", "a", "b", "a"]}, metric, metric_name="F1")
    first = heights(figure, 0)  # drawn in the order of the metric: 0.1 a, 0.3 a, 0.5 b, 0.9 a
    low = first[[0, 1, 3]]
    assert (np.diff(low) > 0).all()
    assert low.max() < 0.5 < first[2]
    assert np.allclose(heights(figure, 1), [0, 0.25, 0.5, 1])  # the metric, to scale


def test_numbers_have_bands_in_their_order_and_many_stand_to_scale() -> None:
    few = parallel_coordinates({"lr": ["10", "9", "0.5"]}, np.array([1.0, 2.0, 3.0]), metric_name="F1")
    assert np.argsort(heights(few, 0)).tolist() == [2, 1, 0]  # by size, not by letters
    many = [str(value) for value in range(1, MAX_BANDS + 3)]
    figure = parallel_coordinates({"depth": many}, np.arange(len(many), dtype=float), metric_name="F1")
    assert np.allclose(heights(figure, 0), np.linspace(0, 1, len(many)))
    powers = [str(10.0**-value) for value in range(MAX_BANDS + 2)]
    figure = parallel_coordinates({"lr": powers}, np.arange(len(powers), dtype=float), metric_name="F1")
    assert np.allclose(heights(figure, 0), np.linspace(1, 0, len(powers)))  # of logarithms


def test_better_lines_are_darker_and_drawn_later() -> None:
    figure = parallel_coordinates({"a": ["x", "y", "x"]}, np.array([3.0, 1.0, 2.0]), metric_name="F1")
    points, colours = lines(figure)
    assert (np.diff(points[:, -1, 1]) > 0).all()
    assert (np.diff(colours[:, :3].sum(axis=1)) < 0).all()


def test_a_run_without_an_option_is_shown_and_texts_are_no_formulas(tmp_path) -> None:
    figure = parallel_coordinates({"$\\bad": ["$x", None, "2"]}, np.array([1.0, 2.0, 3.0]), metric_name="F1")
    words = [text.get_text() for text in figure.axes[0].texts]
    assert {"$x", "not given", "2", "$\\bad"} <= set(words)
    assert save(figure, tmp_path / "options.png").stat().st_size > 1000


def test_runs_that_are_all_as_good_can_be_drawn(tmp_path) -> None:
    figure = parallel_coordinates({"a": ["1", "2"]}, np.array([0.5, 0.5]), metric_name="F1")
    save(figure, tmp_path / "options.png")
    assert np.isfinite(lines(figure)[0]).all()


@pytest.mark.parametrize(
    ("options", "metric", "message"),
    [
        ({}, [1.0, 2.0], "0 options of 2 runs"),
        ({"a": ["1"]}, [1.0], "1 options of 1 runs"),
        ({"a": ["1", "2"]}, [1.0, float("nan")], "not finite"),
        ({"a": ["1"]}, [1.0, 2.0], "a has 1 values for 2 runs"),
    ],
)
def test_what_cannot_be_drawn(options, metric, message) -> None:
    with pytest.raises(ValueError, match=message):
        parallel_coordinates(options, np.array(metric), metric_name="F1")
