import itertools

import numpy as np
import pytest

from tocsin.data.series_data import SeriesData
from tocsin.plots.architecture import Part, layer_table
from tocsin.plots.search_effects import cost_and_quality, marginal_effects, pair_heat_map, pareto_front
from tocsin.plots.search_ranking import DIVERSE, OVERALL, Promoted, quick_against_full, ranking_chart
from tocsin.plots.splits import splits_overview

GRID = [{"m.size": size, "m.kind": kind} for size, kind in itertools.product(["5", "20", "100"], "ab")]
LOSS = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def texts(axes):
    return [text.get_text() for text in axes.texts]


# --- effects ------------------------------------------------------------------------------------------------


def test_each_key_has_a_panel_with_the_mean_of_each_value():
    figure = marginal_effects(GRID, LOSS, "val_loss", {"m.size": 0.9, "m.kind": 0.06})
    size, kind = figure.axes
    assert size.get_title(loc="left") == "size: explains 90 %"
    assert kind.get_title(loc="left") == "kind: explains 6 %"
    assert [text.get_text() for text in size.get_xticklabels()] == ["5", "20", "100"]  # by size, not as words
    (line,) = [line for line in size.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(line.get_ydata(), [1.5, 3.5, 5.5])
    dots = [y for line in kind.lines if line.get_marker() == "o" for y in line.get_ydata()]
    assert sorted(dots) == LOSS


def test_failed_jobs_are_left_out_of_effects():
    figure = marginal_effects(GRID, [*LOSS[:5], np.nan], "val_loss", {"m.size": 1.0})
    (line,) = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(line.get_ydata(), [1.5, 3.5, 5.0])


@pytest.mark.parametrize(("mode", "best"), [("min", (0, 0)), ("max", (1, 2))])
def test_best_pair_of_values_is_bold_and_darkest(mode, best):
    axes = pair_heat_map(GRID, LOSS, ("m.kind", "m.size"), "val_loss", mode).axes[0]
    cells = {text.get_position(): text for text in axes.texts}
    assert {place: text.get_text() for place, text in cells.items()} == {
        **{(0, 0): "1", (1, 0): "3", (2, 0): "5"},
        **{(0, 1): "2", (1, 1): "4", (2, 1): "6"},
    }
    row, column = best
    assert [place for place, text in cells.items() if text.get_fontweight() == "bold"] == [(column, row)]
    assert np.unravel_index(axes.images[0].get_array().argmax(), (2, 3)) == best


def test_pair_that_no_job_has_is_marked():
    axes = pair_heat_map(GRID, [*LOSS[:5], np.nan], ("m.kind", "m.size"), "val_loss", "min").axes[0]
    assert texts(axes)[-1] == "n/a"


def test_front_holds_the_jobs_that_none_beats_in_both():
    points = np.array([[1.0, 5.0], [2.0, 6.0], [3.0, 2.0], [3.0, 1.0], [9.0, 1.0]])
    np.testing.assert_array_equal(pareto_front(points, "min"), [[1, 5], [3, 1]])
    np.testing.assert_array_equal(pareto_front(points, "max"), [[1, 5], [2, 6]])


def test_cost_is_coloured_by_the_key_and_unknown_times_are_left_out():
    figure = cost_and_quality([1, 2, np.nan], [0.5, 0.4, 0.3], ["10", "9", "9"], "m.d", "vus", "min")
    (axes,) = figure.axes
    dots = [tuple(np.ravel(line.get_xydata())) for line in axes.lines if line.get_marker() == "o"]
    assert dots == [(2, 0.4), (1, 0.5)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["d=9", "d=10"]


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="none of the qualities is finite"):
        marginal_effects(GRID, [np.nan] * 6, "val_loss", {"m.size": 0.0})
    with pytest.raises(ValueError, match="no swept key"):
        marginal_effects(GRID, LOSS, "val_loss", {})
    with pytest.raises(ValueError, match="no job has both"):
        cost_and_quality([np.nan], [1.0], ["1"], "a", "b", "min")


# --- ranking ------------------------------------------------------------------------------------------------

JOBS = [
    Promoted("a=1", 0.2, 0.9, True),
    Promoted("a=2", 0.3, 0.7, False),
    Promoted("a=3", 0.1, np.nan, True),
    Promoted("a=4", 0.4, 0.8, True),
]


@pytest.mark.parametrize(("mode", "order"), [("min", ["a=2", "a=4", "a=1"]), ("max", ["a=1", "a=4", "a=2"])])
def test_best_job_in_full_stands_on_top(mode, order):
    axes = ranking_chart(JOBS, "val_loss", mode).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == order
    assert axes.yaxis_inverted()
    filled = {
        line.get_ydata()[0]: line.get_color() for line in axes.lines if line.get_markeredgecolor() == "white"
    }
    assert filled[order.index("a=2")] == DIVERSE
    assert filled[order.index("a=1")] == OVERALL


def test_many_jobs_are_cut_and_counted():
    axes = ranking_chart([Promoted(str(n), n, n, True) for n in range(40)], "loss", "min").axes[0]
    assert axes.get_title(loc="left") == "40 jobs, 10 more not shown"
    assert len(axes.get_yticklabels()) == 30


def test_quick_and_full_stand_against_each_other():
    figure = quick_against_full(JOBS, "loss", (0.5, 0.25), np.array([0.9, 0.7, 0.7]))
    left, right = figure.axes
    assert left.get_title(loc="left") == "Kendall 0.50, Spearman 0.25, 3 jobs"
    assert sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in left.lines) == [
        *((0.2, 0.9), (0.3, 0.7), (0.4, 0.8)),
    ]
    assert right.get_title(loc="left") == "the best one is number 2 in quick"
    alone = quick_against_full(JOBS[:1], "loss", (np.nan, np.nan), np.array([0.9]))
    assert alone.axes[0].get_title(loc="left") == "1 job"


def test_stage_without_a_finished_job_is_said():
    failed = [Promoted("a", 0.1, np.nan, True)]
    with pytest.raises(ValueError, match="no job of the full stage has finished"):
        ranking_chart(failed, "loss", "min")
    with pytest.raises(ValueError, match="no job of the full stage has finished"):
        quick_against_full(failed, "loss", (0.0, 0.0), np.array([np.nan]))


# --- architecture and data ----------------------------------------------------------------------------------


def test_rows_of_the_layer_table_are_parts_and_bars_their_share():
    parts = [Part("encoder", "Encoder", 0, 750, "2 x 3"), Part("0", "Linear", 1, 250, "")]
    axes = layer_table(parts, 1000).axes[0]
    assert {"encoder", "Encoder", "2 x 3", "750", "250", "of 1,000"} <= set(texts(axes))
    widths = [patch.get_width() for patch in axes.patches]
    assert widths[0] == pytest.approx(3 * widths[1])
    with pytest.raises(ValueError, match="no parts"):
        layer_table([], 0)


def test_parts_of_the_data_follow_each_other_with_their_anomalies():
    def part(level, n, labels=None):
        values = np.full((n, 3), level, np.float32)
        return SeriesData(values, ("a", "b", "c"), labels=labels)

    marks = np.zeros(50, dtype=bool)
    marks[20:30] = True
    figure = splits_overview(
        [("train", part(1, 100)), ("validation", part(2, 20)), ("test", part(3, 50, marks))], channels=2
    )
    assert len(figure.axes) == 2
    top = figure.axes[0]
    spans = [(line.get_xdata()[0], line.get_xdata()[-1], line.get_ydata()[0]) for line in top.lines]
    assert spans == [(0, 99, 1), (100, 119, 2), (120, 169, 3)]
    assert texts(top) == ["train, 100 steps", "validation, 20 steps", "test, 50 steps"]
    (area,) = top.patches
    assert area.get_extents().transformed(top.transData.inverted()).x0 == pytest.approx(139.5)
    with pytest.raises(ValueError, match="no part"):
        splits_overview([])
