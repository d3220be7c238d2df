"""Image metrics against loops over thresholds and regions, and against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from tocsin.metrics.functional import auc_pr, auc_roc
from tocsin.metrics.images import aupro, image_metrics, pixel_ap, pixel_auroc, pixel_metrics


def regions_by_filling(mask):
    """Coordinates of each set of true pixels that touch by an edge or a corner."""
    left = set(zip(*map(list, np.nonzero(mask)), strict=True))
    while left:
        edge, region = [left.pop()], []
        while edge:
            y, x = edge.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
        yield tuple(np.array(region).T)


def aupro_by_definition(maps, masks, limit):
    """The mean overlap of the regions at every threshold, then the trapezoidal area up to the limit."""
    regions = [(i, place) for i in range(len(maps)) for place in regions_by_filling(masks[i])]
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        alarms = maps >= threshold
        rates.append(alarms[~masks].mean())
        overlaps.append(np.mean([alarms[i][place].mean() for i, place in regions]))
    at_limit = np.interp(limit, rates, overlaps) if limit < 1 else 1.0
    kept = np.array(rates) < limit
    x = np.append(np.array(rates)[kept], limit)
    y = np.append(np.array(overlaps)[kept], at_limit)
    # Of several overlaps at exactly the limit only the first belongs to the area, and interpolation takes the last.
    if limit in rates:
        y[-1] = overlaps[rates.index(limit)]
    return np.trapezoid(y, x) / limit


def draw(seed, *, shape=(5, 12, 17), ties=False, squares=6):
    """Maps that lean towards the masks: rectangles, some at the border, on all images but the last."""
    rng = np.random.default_rng(seed)
    masks = np.zeros(shape, bool)
    for _ in range(squares):
        image, y, x = rng.integers(0, shape[0] - 1), rng.integers(-2, shape[1]), rng.integers(-2, shape[2])
        masks[image, max(y, 0) : y + 3, max(x, 0) : x + 4] = True
    masks[0, 5, 5] = True
    maps = (rng.normal(size=shape) + masks).astype(np.float32)
    return (np.round(maps, 1) if ties else maps), masks


# --- AUPRO --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("limit", [0.01, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_aupro_equals_a_loop_over_thresholds_and_regions(seed, limit, ties):
    maps, masks = draw(seed, ties=ties)
    expected = aupro_by_definition(maps, masks, limit)
    assert 0.01 < expected < 0.99
    assert aupro(maps, masks, fpr_limit=limit) == pytest.approx(expected, abs=1e-12)


def test_aupro_by_hand():
    # Normal scores 4 and 1, regions of scores {5} and {3, 0}. Overlap is 1/2 up to a rate of 1/2 (score 4), there it
    # rises to 3/4 (score 3), and at a rate of 1 (score 1) still is. Cut at 0.8: (0.5 * 0.5 + 0.3 * 0.75) / 0.8.
    maps = np.array([[[5.0, 4.0, 3.0, 0.0, 1.0]]])
    masks = np.array([[[1, 0, 1, 1, 0]]])
    assert aupro(maps, masks, fpr_limit=0.8) == pytest.approx((0.25 + 0.225) / 0.8, abs=1e-15)


def test_within_one_tie_the_curve_is_a_line_up_to_the_limit():
    masks = np.zeros((1, 10, 10), bool)
    masks[0, 0, 0] = True
    maps = np.full(masks.shape, 3.0)
    for limit in (0.1, 0.3, 1.0):
        assert aupro(maps, masks, fpr_limit=limit) == pytest.approx(limit / 2)


def test_every_region_weighs_the_same():
    maps, masks = np.zeros((1, 20, 20)), np.zeros((1, 20, 20), bool)
    masks[0, :10, :10] = True
    masks[0, 15, 15] = True
    maps[0, 15, 15] = 1  # the large region is as low as what is normal
    assert aupro(maps, masks) == pytest.approx((1 + 0.15) / 2)


def test_pixels_that_touch_by_a_corner_are_one_region_and_images_never_are():
    masks = np.zeros((2, 9, 9), bool)
    masks[0, [2, 3], [2, 3]] = True
    masks[1, 3, 3] = True  # right behind a pixel of the first image
    maps = np.zeros(masks.shape)
    maps[0, 2, 2] = maps[1, 3, 3] = 1
    overlap = (0.5 + 1) / 2  # of two regions, from the start on
    assert aupro(maps, masks) == pytest.approx(overlap + (1 - overlap) * 0.15)


def test_a_perfect_map_has_exactly_one_and_a_reversed_one_nothing():
    _, masks = draw(3)
    rising = np.random.default_rng(0).random(masks.shape)
    assert aupro(masks + 0.5 * rising, masks) == 1
    assert aupro(0.5 * rising - masks, masks) == 0


def test_a_random_map_has_half_the_limit():
    rng = np.random.default_rng(0)
    masks = np.zeros((20, 64, 64), bool)
    masks[:10, 10:20, 30:50] = True
    for limit in (0.1, 0.3):
        found = aupro(rng.random(masks.shape), masks, fpr_limit=limit)
        assert found == pytest.approx(limit / 2, abs=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_aupro_is_never_above_one(seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((3, 15, 15)) < 0.1  # regions of one to some pixels, also at the border
    almost = masks + rng.choice([0, 1], size=masks.shape, p=[0.999, 0.001]).astype(np.float32)
    assert 0.9 < aupro(almost, masks, fpr_limit=rng.uniform(0.05, 1)) <= 1


def test_many_tiny_regions_equal_the_loop():
    masks = np.zeros((2, 17, 17), bool)
    masks[0, ::2, ::2] = True  # 81 regions of one pixel
    maps = np.random.default_rng(1).normal(size=masks.shape) + masks
    assert len(list(regions_by_filling(masks[0]))) == 81
    assert aupro(maps, masks) == pytest.approx(aupro_by_definition(maps, masks, 0.3), abs=1e-12)


# --- pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_metrics_equal_sklearn_and_the_metrics_of_points(seed, ties):
    maps, masks = draw(seed, ties=ties)
    flat = masks.ravel(), maps.ravel()
    assert pixel_auroc(maps, masks) == pytest.approx(sk.roc_auc_score(*flat), abs=1e-12)
    assert pixel_auroc(maps, masks) == pytest.approx(auc_roc(flat[1], flat[0]), abs=1e-12)
    assert pixel_ap(maps, masks) == pytest.approx(sk.average_precision_score(*flat), abs=1e-12)
    assert pixel_ap(maps, masks) == pytest.approx(auc_pr(flat[1], flat[0]), abs=1e-12)


@pytest.mark.parametrize("metric", [aupro, pixel_auroc, pixel_ap])
@pytest.mark.parametrize(
    "change",
    [lambda m: m + 128, lambda m: m * 2.0**40, lambda m: m - 1024, lambda m: m.astype(np.float64) * 1e-200],
    ids=["shift", "scale", "negative", "minute"],
)
def test_maps_are_never_squashed(metric, change):
    maps, masks = draw(7)
    maps = np.round(maps * 256) / 256  # so that no change rounds
    assert metric(change(maps), masks) == metric(maps, masks)


@pytest.mark.parametrize("metric", [aupro, pixel_auroc, pixel_ap])
def test_order_of_images_does_not_matter(metric):
    maps, masks = draw(4)
    order = [3, 0, 4, 2, 1]
    assert metric(maps[order], masks[order]) == pytest.approx(metric(maps, masks), abs=1e-12)
    assert metric(maps[:, ::-1], masks[:, ::-1]) == pytest.approx(metric(maps, masks), abs=1e-12)


def test_half_precision_maps_and_masks_of_numbers_are_read():
    maps, masks = draw(5)
    half = maps.astype(np.float16)
    assert aupro(half, masks.astype(np.uint8)) == aupro(half.astype(np.float32), masks)


def test_maps_that_float32_cannot_tell_apart_are_still_ranked():
    masks = np.array([[[False, True]]])
    maps = np.array([[[1.0, 1.0 + 1e-12]]])
    assert (pixel_auroc(maps, masks), aupro(maps, masks)) == (1, 1)


def test_together_they_equal_the_single_ones_on_the_known_images():
    maps, masks = draw(6)
    known = np.array([True, False, True, True, True])
    assert masks[1].any()
    assert pixel_metrics(maps, masks, known, fpr_limit=0.2) == {
        "pixel_auroc": pixel_auroc(maps[known], masks[known]),
        "pixel_ap": pixel_ap(maps[known], masks[known]),
        "aupro": aupro(maps[known], masks[known], fpr_limit=0.2),
    }
    hidden = np.where(known[:, None, None], masks, False)  # what stands in for an unknown mask is not read
    assert pixel_metrics(maps, hidden, known) == pixel_metrics(maps, masks, known)


def test_what_is_undefined_is_nan_and_not_zero():
    maps, _ = draw(0)
    none, every = np.zeros(maps.shape, bool), np.ones(maps.shape, bool)
    assert np.isnan([aupro(maps, none), pixel_auroc(maps, none), pixel_ap(maps, none)]).all()
    assert np.isnan([aupro(maps, every), pixel_auroc(maps, every)]).all()
    assert pixel_ap(maps, every) == 1
    unknown = pixel_metrics(maps, every, np.zeros(len(maps), bool))
    assert np.isnan(list(unknown.values())).all()


def test_a_constant_map_is_chance():
    _, masks = draw(1)
    maps = np.full(masks.shape, 2.5, np.float32)
    assert pixel_metrics(maps, masks, np.ones(len(maps), bool)) == pytest.approx(
        {"pixel_auroc": 0.5, "pixel_ap": masks.mean(), "aupro": 0.15}
    )


def spoiled(value):
    maps = np.zeros((3, 4, 4), np.float32)
    maps[1, 2, 0] = value
    return maps


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (
            spoiled(np.nan),
            np.zeros((3, 4, 4)),
            "1 of 3 maps hold NaN or infinite scores, the first at index 1",
        ),
        (spoiled(np.inf), np.zeros((3, 4, 4)), "1 of 3 maps hold NaN"),
        (spoiled(0), np.zeros((3, 4, 5)), r"maps have shape \(3, 4, 4\), but masks \(3, 4, 5\)"),
        (spoiled(0), np.full((3, 4, 4), 255), "masks must be bool or 0 and 1, got 255"),
        (spoiled(0)[0], np.zeros((4, 4)), r"maps must be \(images, height, width\).*got shape \(4, 4\)"),
        (spoiled(0)[:0], np.zeros((0, 4, 4)), "maps must be .* not empty"),
    ],
)
@pytest.mark.parametrize(
    "metric", [aupro, pixel_auroc, pixel_ap, lambda s, y: pixel_metrics(s, y, np.ones(len(s), bool))]
)
def test_bad_input_is_named(metric, maps, masks, message):
    with pytest.raises(ValueError, match=message):
        metric(maps, masks)


@pytest.mark.parametrize("limit", [0, -0.1, 1.01, np.nan])
def test_bad_options_are_named(limit):
    maps, masks = draw(0)
    with pytest.raises(ValueError, match=r"fpr_limit=.* is not in \(0, 1\]"):
        aupro(maps, masks, fpr_limit=limit)
    with pytest.raises(ValueError, match=r"fpr_limit=.* is not in \(0, 1\]"):
        pixel_metrics(maps, masks, np.ones(len(maps), bool), fpr_limit=limit)
    for known in (np.ones(4, bool), np.ones(5)):
        with pytest.raises(ValueError, match=r"known must be bool, one per image, \(5,\), got"):
            pixel_metrics(maps, masks, known)


# --- images -------------------------------------------------------------------------------------------------


def test_image_metrics_equal_sklearn():
    rng = np.random.default_rng(0)
    labels = rng.random(80) < 0.3
    scores = np.round(rng.normal(size=80) + labels, 1) + 100
    found = image_metrics(scores, labels, 100.5)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(labels, scores >= 100.5, average="binary")
    assert found == pytest.approx(
        {
            "image_auroc": sk.roc_auc_score(labels, scores),
            "image_ap": sk.average_precision_score(labels, scores),
            "image_f1": f1,
            "image_precision": precision,
            "image_recall": recall,
        }
    )


def test_a_score_at_the_threshold_is_an_alarm():
    assert image_metrics(np.array([1.0, 2.0]), np.array([0, 1]), 2.0)["image_f1"] == 1


def test_image_metrics_of_one_class():
    scores = np.arange(4.0)
    assert np.isnan(list(image_metrics(scores, np.zeros(4, bool), 2.0).values())).all()
    every = image_metrics(scores, np.ones(4, bool), 10.0)
    assert np.isnan(every["image_auroc"])
    assert np.isnan(every["image_precision"])
    assert (every["image_ap"], every["image_f1"], every["image_recall"]) == (1, 0, 0)


def test_bad_image_scores_are_named():
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        image_metrics(np.array([np.nan, 1]), np.array([0, 1]), 0.5)
    with pytest.raises(ValueError, match="the threshold is NaN"):
        image_metrics(np.array([0, 1]), np.array([0, 1]), float("nan"))
