import numpy as np
import pytest

from tocsin.plots.domains import domain_matrix


def test_numbers_stand_in_their_cells_and_equal_domains_are_framed():
    values = np.array([[0.912, 0.5, np.nan], [0.6, 0.7, 0.8]])
    figure = domain_matrix(values, ["a", "b"], ["b", "a", "c"], "pixel AP")
    (axes,) = figure.axes
    cells = {text.get_position(): text for text in axes.texts}  # (column, row)
    assert {place: text.get_text() for place, text in cells.items()} == {
        (0, 0): "0.912",
        (1, 0): "0.500",
        (2, 0): "n/a",
        (0, 1): "0.600",
        (1, 1): "0.700",
        (2, 1): "0.800",
    }
    assert cells[0, 0].get_color() == "white"  # on the darkest colour
    assert cells[1, 0].get_color() != "white"
    centres = [(patch.get_x() + patch.get_width() / 2, patch.get_y()) for patch in axes.patches]
    assert [(round(x), round(y + 0.46)) for x, y in centres] == [(1, 0), (0, 1)]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("tested on", "trained on")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert figure.get_suptitle() == "pixel AP"


def test_colours_follow_the_limits_given_and_leave_gaps_blank():
    values = np.array([[0.75, np.nan]])
    image = domain_matrix(values, ["a"], ["b", "c"], limits=(0.5, 1.0)).axes[0].images[0]
    assert image.get_array()[0, 0] == 0.5
    assert image.get_array().mask.tolist() == [[False, True]]


def test_equal_values_are_drawn():
    assert domain_matrix(np.array([[0.7]]), ["a"], ["a"]).axes[0].texts[0].get_text() == "0.700"


def test_wrong_arrays_are_named():
    with pytest.raises(ValueError, match=r"values has shape \(2, 2\) for 1 sources and 2 targets"):
        domain_matrix(np.ones((2, 2)), ["a"], ["b", "c"])
    with pytest.raises(ValueError, match="none of the values is finite"):
        domain_matrix(np.full((1, 1), np.nan), ["a"], ["b"])
