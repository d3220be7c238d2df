"""Anomaly maps as colours over pictures: plain numpy, so that thousands of images are written quickly."""

import numpy as np

# Low scores leave the picture as it is. The hues run from yellow over red to violet, as a heat map is read anywhere.
_ANCHORS = np.array([[255, 237, 130], [254, 178, 60], [240, 90, 40], [189, 15, 50], [92, 0, 80]])
_FULL = 0.85  # opacity of the highest score
CONTOUR = (0, 229, 255)  # cyan: no hue of the heat map, and rare in photographs

LOW, HIGH = (
    0.5,
    0.997,
)  # quantiles of the maps: half of the pixels stay clear, the highest few share one colour
_SHOWN = 0.002  # share of the darkest and of the brightest values that the display cuts off
_ENOUGH = 2_000_000  # values for a quantile


def heat_palette() -> np.ndarray:
    """(256, 4) float64 colours and opacity in [0, 1], from the lowest score to the highest."""
    level = np.linspace(0, 1, 256)
    anchors = np.linspace(0, 1, len(_ANCHORS))
    colours = [np.interp(level, anchors, channel / 255) for channel in _ANCHORS.T]
    return np.stack([*colours, _FULL * level], axis=1)


_PALETTE = heat_palette()


def heat_limits(maps: np.ndarray) -> tuple[float, float]:
    """Scores of the first and the last colour, one scale for all maps.

    Args:
        maps: (N, H, W) numbers, higher = more anomalous; what is not finite is left out.

    Returns:
        The median score, and the one that 0.3 % exceed; both the same for constant maps.

    Raises:
        ValueError: No score is finite.
    """
    scores = _some(np.asarray(maps))
    if scores.size == 0:
        raise ValueError(f"none of the scores of maps of shape {np.shape(maps)} is finite")
    low, high = np.quantile(scores, [LOW, HIGH])
    if low == high:  # a defect of few pixels in flat maps
        high = scores.max()
    return float(low), float(high)


def displayable(images: np.ndarray) -> np.ndarray:
    """Pictures in [0, 1] with the full contrast, all by the same two values.

    Args:
        images: (..., 3) numbers in any range, such as measured maps above 1.

    Returns:
        The same shape, float64. The darkest and the brightest 0.2 % of all values become 0 and 1.
    """
    values = _some(np.asarray(images))
    low, high = np.quantile(values, [_SHOWN, 1 - _SHOWN]) if values.size else (0.0, 1.0)
    if low == high:  # flat, or flat but for a few pixels
        low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))
    shown = (np.nan_to_num(np.asarray(images, np.float64), nan=0.0) - low) / (high - low)
    clipped: np.ndarray = shown.clip(0, 1)
    return clipped


def outline(mask: np.ndarray) -> np.ndarray:
    """The (H, W) pixels of a mask that have a neighbour outside of it, or lie at the border."""
    inside = np.pad(np.asarray(mask).astype(bool), 1)
    core = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    border: np.ndarray = inside[1:-1, 1:-1] & ~core
    return border


def image_overlay(
    image: np.ndarray, score_map: np.ndarray, limits: tuple[float, float], mask: np.ndarray | None = None
) -> np.ndarray:
    """One picture with its anomaly map over it, to be written to a file.

    Args:
        image: (H, W, 3) numbers in any range; drawn with full contrast.
        score_map: (H, W) scores, higher = more anomalous; those that are not finite stay clear.
        limits: Scores of the first and the last colour, as of `heat_limits`; the same for all pictures that are
            to be compared.
        mask: (H, W) bool, true = anomalous; its outline is drawn in cyan. None if unknown.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: Shapes do not fit each other, or `limits` run the wrong way.
    """
    image, score_map = np.asarray(image), np.asarray(score_map, dtype=np.float64)
    low, high = limits
    if image.ndim != 3 or image.shape[2] != 3 or score_map.shape != image.shape[:2]:
        raise ValueError(
            f"image has shape {image.shape} and score_map {score_map.shape}: give (H, W, 3) and (H, W)"
        )
    if mask is not None and np.shape(mask) != score_map.shape:
        raise ValueError(f"mask has shape {np.shape(mask)}, but score_map {score_map.shape}")
    if not low <= high:
        raise ValueError(f"limits=({low}, {high}) do not rise")
    span = (high - low) or 1.0  # in flat maps, whatever is higher is hot
    level = np.nan_to_num((score_map - low) / span, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    heat = _PALETTE[np.rint(255 * level).astype(np.int64)]  # (H, W, 4)
    opacity = heat[..., 3:]
    drawn: np.ndarray = np.rint(255 * ((1 - opacity) * displayable(image) + opacity * heat[..., :3])).astype(
        np.uint8
    )
    if mask is not None:
        drawn[outline(mask)] = CONTOUR
    return drawn


def _some(values: np.ndarray) -> np.ndarray:
    """Finite values, evenly chosen if there are many, float64."""
    flat = values.reshape(-1)
    flat = flat[:: max(1, flat.size // _ENOUGH)].astype(np.float64)
    finite: np.ndarray = flat[np.isfinite(flat)]
    return finite
