"""Shapes and colours that drawn figures share with the things around them, so that neither tells them apart."""

import numpy as np

SKIN = np.array([(62, 40, 30), (104, 70, 50), (150, 108, 80), (196, 150, 118), (228, 190, 164)], np.float32)
HAIR = np.array([(22, 18, 16), (60, 42, 28), (110, 78, 42), (176, 140, 80), (150, 150, 150)], np.float32)

Part = tuple[np.ndarray, np.ndarray]  # (P, 2) corners of a polygon, x and y; (3,) colour in 0 to 255
Rng = np.random.Generator
Point = np.ndarray | tuple[float, float]

_HALF_TURN = np.linspace(0, np.pi, 7)
_TURN = np.linspace(0, 2 * np.pi, 20, endpoint=False)


def tapered(start: Point, end: Point, start_radius: float, end_radius: float) -> np.ndarray:
    """(14, 2) outline of a limb with round ends."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    heading = np.arctan2(*(b - a)[::-1])
    back, front = heading + np.pi / 2 + _HALF_TURN, heading - np.pi / 2 + _HALF_TURN
    return np.concatenate(
        [a + start_radius * _directions(back), b + end_radius * _directions(front)]
    )  # (14, 2)


def ellipse(centre: Point, radii: Point) -> np.ndarray:
    """(20, 2) outline."""
    outline: np.ndarray = np.asarray(centre) + np.asarray(radii) * _directions(_TURN)
    return outline


def rounded(corners: np.ndarray, radius: float) -> np.ndarray:
    """(28, 2) outline of a convex four-cornered shape, given clockwise on screen, grown by round corners."""
    edges = np.roll(corners, -1, axis=0) - corners
    normal = np.arctan2(edges[:, 1], edges[:, 0]) - np.pi / 2  # outwards, of the edge that follows a corner
    before = np.roll(normal, 1)
    turn = (normal - before) % (2 * np.pi)
    angles = before[:, None] + turn[:, None] * np.linspace(0, 1, 7)  # (4, 7)
    return (corners[:, None] + radius * _directions(angles)).reshape(-1, 2)  # (28, 2)


def _directions(angles: np.ndarray) -> np.ndarray:
    """(..., 2) x and y."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def any_colour(rng: Rng) -> np.ndarray:
    """(3,) float32 of clothes, walls and things alike: any colour, gray, or that of a skin."""
    kind = rng.random()
    if kind < 0.2:
        colour = SKIN[rng.integers(len(SKIN))] + rng.normal(0, 12, 3)
    elif kind < 0.45:
        colour = np.full(3, rng.uniform(15, 235)) + rng.normal(0, 8, 3)
    else:
        colour = rng.uniform(10, 240, 3)
    drawn: np.ndarray = colour.clip(0, 255).astype(np.float32)
    return drawn
