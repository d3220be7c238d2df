import numpy as np
import pytest
from matplotlib.colors import to_hex

from tocsin.metrics.estimates import Estimate
from tocsin.plots.patch_bars import ap_bars, transfer
from tocsin.plots.patch_colors import ATTACK_COLOR, CLEAN_COLOR, CONTROL_COLOR

CONDITIONS = {
    "clean": Estimate(0.7, 0.6, 0.8),
    "gray": Estimate(0.6, 0.5, 0.65),
    "noise": Estimate(0.5, np.nan, np.nan),
    "patch": Estimate(0.2, 0.1, 0.3),
}


def test_bars_have_their_heights_colours_and_intervals():
    axes = ap_bars(CONDITIONS).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.7, 0.6, 0.5, 0.2]
    found = [to_hex(bar.get_facecolor()).upper() for bar in axes.patches]
    assert found == [CLEAN_COLOR, CONTROL_COLOR, CONTROL_COLOR, ATTACK_COLOR]
    assert [text.get_text() for text in axes.get_xticklabels()] == list(CONDITIONS)
    assert [text.get_text() for text in axes.texts] == ["0.700", "0.600", "0.500", "0.200"]
    bars = [collection.get_segments()[0][:, 1] for collection in axes.collections]
    np.testing.assert_allclose(bars, [[0.6, 0.8], [0.5, 0.65], [0.1, 0.3]])  # none for noise
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 0.8


def test_the_gap_to_the_best_control_is_told():
    axes = ap_bars(CONDITIONS).axes[0]
    assert axes.get_title(loc="left") == "0.300 below the best control, noise"
    assert 0.5 in {line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1}
    sure = ap_bars(CONDITIONS, Estimate(0.3, 0.21, 0.37)).axes[0]
    assert sure.get_title(loc="left") == "0.300 (95 %: 0.210 to 0.370) below the best control, noise"
    weak = CONDITIONS | {"patch": Estimate(0.55, 0.5, 0.6)}
    failed = ap_bars(weak, Estimate(-0.05, -0.15, 0.02)).axes[0]
    assert failed.get_title(loc="left") == "0.050 (95 %: -0.020 to 0.150) above the best control, noise"
    assert ap_bars({"clean": CONDITIONS["clean"]}).axes[0].get_title(loc="left") == ""


def test_the_matrix_has_each_rate_and_frames_the_own_detector():
    rates = np.array([[0.72, 0.35, np.nan], [0.3, 0.66, 0.1]])
    axes = transfer(rates, ["v8n", "v11n"], ["v8n", "v11n", "v26n"]).axes[0]
    assert [text.get_text() for text in axes.texts] == [
        "0.72",
        "0.35",
        "not measured",
        "0.30",
        "0.66",
        "0.10",
    ]
    places = [text.get_position() for text in axes.texts]
    assert places == [(c + 0.5, r + 0.5) for r in range(2) for c in range(3)]
    assert [text.get_fontweight() == "bold" for text in axes.texts] == [
        True,
        False,
        False,
        False,
        True,
        False,
    ]
    frames = [(int(line.get_xdata().min()), int(line.get_ydata().min())) for line in axes.lines]
    assert frames == [(0, 0), (1, 1)]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["v8n", "v11n"]
    np.testing.assert_array_equal(axes.collections[0].get_array().filled(np.nan), rates)
    assert axes.collections[0].get_clim() == (0, 1)
    assert axes.get_ylim() == (2, 0)  # the first patch is above


def test_wrong_arrays_are_named():
    with pytest.raises(ValueError, match="no condition to draw"):
        ap_bars({})
    with pytest.raises(
        ValueError, match=r"rates has shape \(1, 2\), but there are 1 patches and 3 detectors"
    ):
        transfer(np.zeros((1, 2)), ["a"], ["a", "b", "c"])
