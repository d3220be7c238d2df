import numpy as np
import pytest
from matplotlib.colors import to_hex

from tocsin.metrics.detection import PrecisionRecall
from tocsin.metrics.estimates import Estimate
from tocsin.plots.patch_colors import ATTACK_COLOR, CLEAN_COLOR, CONTROL_COLOR
from tocsin.plots.patch_curves import Sweep, precision_recall_curves, robustness
from tocsin.plots.style import PREDICTED

CURVE = PrecisionRecall(np.array([0.0, 0.5, 0.5]), np.array([0.0, 0.5, 1 / 3]), np.array([0.9, 0.8, 0.1]))
NOTHING = PrecisionRecall(np.empty(0), np.empty(0), np.empty(0))


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def colors(axes):
    return [to_hex(line.get_color()).upper() for line in axes.lines]


def test_each_condition_has_its_curve_and_area():
    names = ["clean", "gray", "noise", "patch"]
    figure = precision_recall_curves(
        dict.fromkeys(names, CURVE), {name: i / 8 for i, name in enumerate(names)}
    )
    axes = figure.axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[0, 0], [0, 0], [0.5, 0.5], [0.5, 1 / 3]]
    found = colors(axes)
    assert (found[0], found[3]) == (CLEAN_COLOR, ATTACK_COLOR)
    looks = {(color, line.get_linestyle()) for color, line in zip(found, axes.lines, strict=True)}
    assert len(looks) == 4
    assert legend(figure) == [
        "clean (AP50 0.000)",
        "gray (AP50 0.125)",
        "noise (AP50 0.250)",
        "patch (AP50 0.375)",
    ]


def test_a_detector_that_finds_nothing_has_a_curve_without_an_area():
    figure = precision_recall_curves({"clean": CURVE, "patch": NOTHING})
    assert figure.axes[0].lines[1].get_xydata().tolist() == [[0, 0]]
    assert legend(figure) == ["clean", "patch"]


def sweep(values, rates, **options):
    measured = {
        "vanish_25": [Estimate(rate, rate - 0.1, rate + 0.1) for rate in rates],
        "vanish_25 of the control": [Estimate(rate / 4, np.nan, np.nan) for rate in rates],
        "ap50_patch": [Estimate(1 - rate, 0.9 - rate, 1.1 - rate) for rate in rates],
    }
    return Sweep(np.array(values), "strength", measured, **options)


def test_each_sweep_has_a_panel_with_its_lines_in_the_order_of_the_steps():
    figure = robustness(
        {
            "Size": sweep([0.3, 0.1, 0.2], [0.8, 0.2, 0.6], trained_at=0.2),
            "JPEG": sweep([30, 95], [0.3, 0.7], falls=True),
        }
    )
    size, jpeg = figure.axes
    assert [axes.get_title(loc="left") for axes in (size, jpeg)] == ["Size", "JPEG"]
    rate, control, precision, mark = size.lines
    assert rate.get_xydata().tolist() == [[0.1, 0.2], [0.2, 0.6], [0.3, 0.8]]
    assert control.get_ydata() == pytest.approx([0.05, 0.15, 0.2])
    assert set(mark.get_xdata()) == {0.2}
    assert colors(size)[:3] == [ATTACK_COLOR, CONTROL_COLOR, PREDICTED]
    assert [line.get_linestyle() for line in (rate, control, precision)] == ["-", "-", "--"]
    assert colors(jpeg) == colors(size)[:3]
    band = size.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((0.1, 0.9))
    left, right = jpeg.get_xlim()
    assert left > right  # the strongest is on the right
    assert size.get_xlim()[0] < size.get_xlim()[1]
    assert jpeg.get_xticks().tolist() == [30, 95]
    assert legend(figure) == [
        "vanish_25",
        "vanish_25 of the control",
        "ap50_patch",
        "as in training, or unchanged",
    ]


def test_a_fourth_sweep_begins_a_row_and_empty_panels_are_not_drawn():
    figure = robustness({f"sweep {i}": sweep([0, 1], [0.5, 0.6]) for i in range(4)})
    assert [axes.axison for axes in figure.axes] == [True] * 4 + [False] * 2
    assert legend(figure)[-1] == "ap50_patch"  # nothing was marked


def test_wrong_arrays_are_named():
    with pytest.raises(ValueError, match="no curve to draw"):
        precision_recall_curves({})
    with pytest.raises(ValueError, match="no sweep to draw"):
        robustness({})
    with pytest.raises(ValueError, match="2 numbers of 'vanish_25' for 3 steps of 'strength'"):
        robustness({"Size": sweep([0.1, 0.2, 0.3], [0.1, 0.2])})
