import numpy as np
import pytest
from matplotlib.colors import to_hex

from tocsin.plots.contact_sheet import contact_sheet
from tocsin.plots.heat import displayable
from tocsin.plots.style import PREDICTED


def test_each_row_has_the_original_and_its_views_with_one_contrast():
    rng = np.random.default_rng(0)
    originals, views = rng.random((2, 8, 12, 3)), rng.random((2, 3, 8, 12, 3))
    views[1, 2] *= 0.5  # must stay darker: contrast is not stretched per picture
    figure = contact_sheet(originals, views)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    both = displayable(np.concatenate([originals[:, None], views], axis=1))
    np.testing.assert_array_equal(shown, both.reshape(8, 8, 12, 3))
    assert shown[7].mean() < 0.6 * shown[6].mean()
    framed = [
        axes.axison and to_hex(axes.spines["left"].get_edgecolor()).upper() == PREDICTED
        for axes in figure.axes
    ]
    assert framed == [True, False, False, False] * 2
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == ["original", "3 views of it", ""]
    rows = {axes.get_subplotspec().rowspan.start for axes in figure.axes[:4]}
    assert rows == {0}


@pytest.mark.parametrize("shape", [(3, 2, 8, 12, 3), (2, 2, 8, 11, 3), (2, 0, 8, 12, 3), (2, 8, 12, 3)])
def test_views_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"originals has shape \(2, 8, 12, 3\) and views"):
        contact_sheet(np.zeros((2, 8, 12, 3)), np.zeros(shape))
