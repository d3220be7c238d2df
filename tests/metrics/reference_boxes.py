"""Random boxes and detections of a split, with all that makes matching hard."""

import numpy as np

from tocsin.metrics.box_matching import ImageBoxes


def draw_boxes(seed, n_images=12, crowds=True, ties=True, most=7):
    """Detections that are true boxes moved a little, twice or not at all, some false ones, and the truth.

    Corners are whole numbers, so that each overlap is the same quotient whatever the order of the sums.
    """
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n_images), rng.integers(0, most, n_images))
    corner, size = rng.integers(0, 60, (len(owner), 2)), rng.integers(8, 40, (len(owner), 2))
    boxes = np.concatenate([corner, corner + size], axis=1)
    crowd = rng.random(len(owner)) < 0.2 if crowds else np.zeros(len(owner), bool)
    times = rng.integers(0, 4, len(owner))
    found = np.repeat(boxes, times, axis=0) + rng.integers(-4, 5, (times.sum(), 4))
    false = rng.integers(0, 50, (2 * n_images, 2))
    false = np.concatenate([false, false + rng.integers(5, 40, false.shape)], axis=1)
    found, of = (
        np.concatenate([found, false]),
        np.append(np.repeat(owner, times), rng.integers(0, n_images, len(false))),
    )
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    scores = rng.random(len(found))
    mixed = rng.permutation(len(found))
    detections = ImageBoxes(found[mixed], of[mixed], (scores.round(1) if ties else scores)[mixed])
    return detections, ImageBoxes(boxes, owner, None, crowd)


def coco_ap(detections, truth, n_images, iou_thresholds):
    """Precision of COCO's own evaluation, averaged over its 101 recalls, at each overlap."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def annotations(of):
        wide = of.boxes[:, 2:] - of.boxes[:, :2]
        for i, (box, size, owner) in enumerate(zip(of.boxes, wide, of.owner, strict=True)):
            found = {"id": i + 1, "image_id": int(owner) + 1, "category_id": 1, "bbox": [*box[:2], *size]}
            yield found | {"area": float(size.prod()), "iscrowd": int(of.is_crowd[i])}

    with contextlib.redirect_stdout(io.StringIO()):
        real = COCO()
        real.dataset = {
            "images": [{"id": i + 1} for i in range(n_images)],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": list(annotations(truth)),
        }
        real.createIndex()
        found = COCO()
        scored = [
            a | {"score": float(s)} for a, s in zip(annotations(detections), detections.scores, strict=True)
        ]
        found.dataset = real.dataset | {"annotations": scored}
        found.createIndex()
        evaluation = COCOeval(real, found, "bbox")
        evaluation.params.iouThrs = np.asarray(iou_thresholds)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]  # of 100 detections
    return np.where(precision < 0, np.nan, precision).mean(1)
