"""The drawn figures: the same from the same seed, boxes that fit them, not to be told by colours."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tocsin.data.synthetic import figures as generator
from tocsin.data.synthetic.figure_shapes import rounded
from tocsin.data.synthetic.figure_things import THINGS
from tocsin.data.synthetic.figures import HEIGHTS, MAX_CUT, MAX_FIGURES, Figures, figures

SIZE = 96


@pytest.fixture(scope="module")
def drawn() -> Figures:
    return figures(n_images=150, size=SIZE, seed=3)


def test_one_to_three_figures_in_every_image(drawn: Figures) -> None:
    assert drawn.images.shape == (150, SIZE, SIZE, 3)
    assert drawn.images.dtype == np.uint8
    assert drawn.boxes.shape == (len(drawn.owner), 4)
    assert drawn.boxes.dtype == np.float32
    assert (np.diff(drawn.owner) >= 0).all()
    counts = np.bincount(drawn.owner, minlength=150)
    assert set(counts.tolist()) == set(range(1, MAX_FIGURES + 1))


def test_boxes_are_in_the_image_and_of_all_sizes(drawn: Figures) -> None:
    assert drawn.boxes.min() >= 0
    assert drawn.boxes.max() <= SIZE
    width, height = (drawn.boxes[:, 2:] - drawn.boxes[:, :2]).T
    assert width.min() > 2
    assert height.min() > HEIGHTS[0] * (1 - MAX_CUT) * SIZE * 0.5  # the least that another one may leave
    assert height.max() < HEIGHTS[1] * 1.2 * SIZE
    assert np.ptp(np.quantile(height / SIZE, (0.1, 0.9))) > 0.3


def test_seed_decides_every_pixel_and_a_longer_set_begins_alike() -> None:
    one, longer, other = (figures(n_images=n, size=64, seed=s) for n, s in ((3, 1), (4, 1), (3, 2)))
    assert (one.images == longer.images[:3]).all()
    assert (one.boxes == longer.boxes[longer.owner < 3]).all()
    assert (one.images != other.images).mean() > 0.5


def test_a_box_is_where_the_figure_is() -> None:
    """Without the figures, the same scene differs inside the boxes and nowhere else."""
    background = np.full((160, 160, 3), 128, np.float32)
    for seed in range(8):
        layers, boxes = generator._people(160, np.random.default_rng(seed))
        canvas = background.copy()
        for layer in layers:
            generator._lay(canvas, layer)
        changed = np.abs(canvas - background).max(-1) > 20
        inside = np.zeros_like(changed)
        for left, top, right, bottom in boxes.astype(int):
            inside[top:bottom, left:right] = True
            assert changed[top:bottom, left:right].mean() > 0.15
        assert changed[~inside].mean() < 0.01  # a hand that is cut off by another figure


def test_nearer_figures_are_larger_drawn_later_and_leave_half_of_those_behind() -> None:
    overlaps = 0
    for seed in range(40):
        layers, _ = generator._people(128, np.random.default_rng(seed))
        solid = [layer[:, :, 3] > 127 for layer in layers]
        for index, own in enumerate(solid[:-1]):
            hidden = own & np.any(solid[index + 1 :], axis=0)
            assert hidden.sum() <= 0.5 * own.sum()
            assert own.sum() < solid[index + 1].sum() * 1.6  # one may be cut by the border
            overlaps += bool(hidden.any())
    assert overlaps >= 3


def test_colours_do_not_tell_figures_from_the_rest(drawn: Figures) -> None:
    """Histograms of boxes and of the same boxes moved elsewhere: a linear model finds little."""
    features, labels, groups = [], [], []
    rng = np.random.default_rng(0)
    for box, owner in zip(drawn.boxes.astype(int), drawn.owner, strict=True):
        width, height = box[2:] - box[:2]
        x, y = rng.integers(0, SIZE - width + 1), rng.integers(0, SIZE - height + 1)
        for label, (left, top) in ((1, box[:2]), (0, (x, y))):
            crop = drawn.images[owner, top : top + height, left : left + width].reshape(-1, 3)
            histogram = [np.histogram(crop[:, c], 8, (0, 256))[0] / len(crop) for c in range(3)]
            features.append(np.concatenate([*histogram, crop.mean(0) / 255]))
            labels.append(label)
            groups.append(owner)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    scores = cross_val_predict(
        model, np.array(features), labels, cv=GroupKFold(5), groups=groups, method="predict_proba"
    )[:, 1]
    assert roc_auc_score(labels, scores) < 0.7


@pytest.mark.parametrize("thing", THINGS)
def test_things_are_drawn_about_their_place(thing) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        parts = thing(rng)
        corners = np.concatenate([points for points, _ in parts])
        assert 0.15 < np.ptp(corners[:, 1]) < 1.2
        layer = generator._layer([(points * 50 + 50, colour) for points, colour in parts], 100, rng)
        assert 50 < (layer[:, :, 3] > 127).sum() < 6000


def test_rounded_shape_contains_its_corners() -> None:
    square = np.array([(0.0, 0.0), (2.0, 0.0), (2.0, 1.0), (0.0, 1.0)])
    outline = rounded(square, 0.1)
    assert outline.min(0) == pytest.approx([-0.1, -0.1])
    assert outline.max(0) == pytest.approx([2.1, 1.1])


def test_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="n_images=0 is not a positive number"):
        figures(n_images=0, size=96, seed=0)


def test_tiny_image_is_refused() -> None:
    with pytest.raises(ValueError, match="size=32 is too small for figures"):
        figures(n_images=1, size=32, seed=0)
