"""The drawn castings: the same from the same seed, several views of a part, not to be told by gray levels."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tocsin.data.synthetic import castings as generator
from tocsin.data.synthetic.castings import CANVAS, DEFECTS, MAX_VIEWS, RADIUS, Castings, castings


@pytest.fixture(scope="module")
def drawn() -> Castings:
    return castings(n_defective=120, n_ok=100, seed=3)


def test_as_many_as_asked_for_and_each_part_has_one_label(drawn: Castings) -> None:
    assert drawn.images.shape == (220, 224, 224)
    assert drawn.images.dtype == np.uint8
    assert drawn.table["label"].value_counts().to_dict() == {"defective": 120, "ok": 100}
    parts = drawn.table.groupby("group")
    assert (parts["label"].nunique() == 1).all()
    assert (parts["contrast"].nunique() == 1).all()
    assert parts.size().max() == MAX_VIEWS
    assert set(drawn.table["kind"]) == {"none", *DEFECTS}
    ok = drawn.table["label"] == "ok"
    assert ((drawn.table["contrast"] == 0) == ok).all()
    assert ((drawn.table["kind"] == "none") == ok).all()


def test_seed_decides_every_pixel() -> None:
    one, same, other = (castings(n_defective=4, n_ok=3, seed=seed) for seed in (1, 1, 2))
    assert (one.images == same.images).all()
    assert one.table.equals(same.table)
    assert (one.images != other.images).mean() > 0.5


def test_gray_levels_do_not_tell_the_classes(drawn: Castings) -> None:
    pixels = drawn.images.reshape(len(drawn.images), -1)[:, ::7].astype(np.float32) / 255
    levels = np.quantile(pixels, [0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999], axis=1).T
    centred = pixels - pixels.mean(axis=1, keepdims=True)
    moments = [pixels.mean(axis=1), pixels.std(axis=1), (centred**3).mean(axis=1), (centred**4).mean(axis=1)]
    features = np.column_stack([levels, *moments])
    labels = drawn.table["label"] == "defective"
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    scores = cross_val_predict(
        model, features, labels, cv=GroupKFold(5), groups=drawn.table["group"], method="predict_proba"
    )[:, 1]
    assert roc_auc_score(labels, scores) < 0.75


def test_views_of_a_part_differ(drawn: Castings) -> None:
    views = drawn.images[drawn.table["group"] == drawn.table["group"].value_counts().index[0]].astype(float)
    assert len(views) == MAX_VIEWS
    apart = [np.abs(a - b).mean() for i, a in enumerate(views) for b in views[:i]]
    assert min(apart) > 5  # gray levels of 255


@pytest.mark.parametrize("kind", DEFECTS)
def test_defect_lies_on_the_part_and_grows_with_its_contrast(kind: str) -> None:
    gray = np.full((CANVAS, CANVAS), 0.7, np.float32)
    row, column = np.mgrid[:CANVAS, :CANVAS] - (CANVAS - 1) / 2
    distance = np.hypot(row, column)
    for seed in range(5):
        faint, strong = (
            np.abs(DEFECTS[kind](gray.copy(), contrast, np.random.default_rng(seed)) - gray)
            for contrast in (0.1, 0.5)
        )
        assert 0 < faint.sum() < strong.sum()
        assert (strong > 0.02).mean() < 0.03  # a defect is small
        assert (strong[distance > 1.35 * RADIUS] < 0.02).all()


def test_sound_parts_have_distractors() -> None:
    rng = np.random.default_rng(0)
    added = np.stack([generator._distractors(rng) for _ in range(40)])
    assert (added.min(axis=(1, 2)) < -0.05).mean() > 0.5
    assert (added.max(axis=(1, 2)) > 0.1).mean() > 0.5


@pytest.mark.parametrize("option", ["n_defective", "n_ok"])
def test_no_image_of_a_class_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=0 is not a positive number"):
        castings(**{"n_defective": 2, "n_ok": 2, "seed": 0, option: 0})
