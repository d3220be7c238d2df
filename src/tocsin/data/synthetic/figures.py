"""A drawn stand-in for photographs with people: figures of many poses, sizes and colours among things that are none.

A figure has a head, a torso and limbs, stands, walks or waves, and may cover another one or be cut by the border.
Around it are things made of the same shapes and colours (posts, trees, signs, tables, carts, stray sticks), so that
neither a colour nor a disc over a bar gives a figure away. It is for tests and for trying things out without data:
its numbers say nothing about photographs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

HEIGHTS = (0.15, 0.8)  # of a figure, as a share of the image; small ones are more frequent
MAX_FIGURES = 3  # in an image
MIN_VISIBLE = 0.5  # share of a figure that nearer ones must leave
MAX_CUT = 0.2  # share of its height or width that may lie outside the image
TRIES = 12  # places that are tried for a figure behind others

SKIN = np.array([(62, 40, 30), (104, 70, 50), (150, 108, 80), (196, 150, 118), (228, 190, 164)], np.float32)
HAIR = np.array([(22, 18, 16), (60, 42, 28), (110, 78, 42), (176, 140, 80), (150, 150, 150)], np.float32)

Part = tuple[np.ndarray, np.ndarray]  # (P, 2) corners of a polygon, x and y; (3,) colour in 0 to 255
Rng = np.random.Generator


@dataclass(frozen=True)
class Figures:
    """Drawn images and the boxes of the figures in them.

    Attributes:
        images: (N, S, S, 3) uint8 RGB; one to three figures in each.
        boxes: (M, 4) float32, left, top, right, bottom in pixels, around what can be seen of a figure.
        owner: (M,) int64, index of the image a box belongs to, ascending.
    """

    images: np.ndarray
    boxes: np.ndarray
    owner: np.ndarray


def figures(*, n_images: int, size: int, seed: int) -> Figures:
    """Draw a set; the same arguments give the same images, bit for bit, and more images begin with the same ones.

    Args:
        n_images: N, at least 1.
        size: S, pixels of a side, at least 64.
        seed: Of everything.

    Raises:
        ValueError: An argument is out of range.
    """
    if n_images < 1:
        raise ValueError(f"n_images={n_images} is not a positive number")
    if size < 64:
        raise ValueError(f"size={size} is too small for figures; give 64 pixels or more")
    images = np.empty((n_images, size, size, 3), np.uint8)
    boxes, owner = [], []
    for index in range(n_images):
        images[index], found = _scene(size, np.random.default_rng([seed, index]))
        boxes.append(found)
        owner += [index] * len(found)
    return Figures(images=images, boxes=np.concatenate(boxes), owner=np.array(owner, dtype=np.int64))


# --- a scene ------------------------------------------------------------------------------------------------


def _scene(size: int, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """(S, S, 3) uint8 image and (n, 4) float32 boxes, n from 1 to MAX_FIGURES."""
    canvas = _background(size, rng)
    for _ in range(rng.integers(2, 8)):
        thing = THINGS[int(rng.integers(len(THINGS)))]
        place, height = rng.uniform(-0.1, 1.1, 2) * size, size * rng.uniform(0.08, 0.7)
        _lay(canvas, _layer([(points * height + place, colour) for points, colour in thing(rng)], size, rng))
    layers, boxes = _people(size, rng)
    for layer in reversed(layers):  # the farthest one first
        _lay(canvas, layer)
    if rng.random() < 0.4:  # a thin thing in front of everything
        place = rng.uniform(0, 1, 2) * size
        stick = _tapered(
            place, place + rng.uniform(-0.5, 0.5, 2) * size, *(size * rng.uniform(0.003, 0.008, 2))
        )
        _lay(canvas, _layer([(stick, _colour(rng))], size, rng))
    return _exposed(canvas, rng), boxes


def _people(size: int, rng: Rng) -> tuple[list[np.ndarray], np.ndarray]:
    """Layers of the figures, the nearest first, and (n, 4) float32 boxes of what can be seen of them."""
    low, high = np.log(HEIGHTS)
    heights = size * np.exp(np.sort(rng.uniform(low, high, rng.integers(1, MAX_FIGURES + 1)))[::-1])
    taken = np.zeros((size, size), bool)
    layers, boxes = [], []
    for height in heights:
        parts = _figure(height, rng)
        corners = np.concatenate([points for points, _ in parts])
        low_corner, extent = corners.min(0), np.ptp(corners, axis=0)
        for _ in range(TRIES):
            place = rng.uniform(-MAX_CUT * extent, size - (1 - MAX_CUT) * extent) - low_corner
            layer = _layer([(points + place, colour) for points, colour in parts], size, rng)
            solid = layer[:, :, 3] > 127
            seen = solid & ~taken
            if seen.sum() >= MIN_VISIBLE * solid.sum():
                layers.append(layer)
                boxes.append(_bounds(seen))
                taken |= solid
                break
    return layers, np.array(boxes, dtype=np.float32)


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the true pixels, the last two past them."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _background(size: int, rng: Rng) -> np.ndarray:
    """(S, S, 3) float32: a ground and a wall or sky of different textures."""
    upper, lower = (_texture(size, rng) for _ in range(2))
    horizon = rng.uniform(0.2, 0.9) * size + rng.uniform(-0.3, 0.3) * (np.arange(size) - size / 2)
    below = np.arange(size)[:, None] > horizon  # (S, S)
    return np.where(below[:, :, None], lower, upper)


def _texture(size: int, rng: Rng) -> np.ndarray:
    """(S, S, 3) float32 of one colour with blotches of two sizes, perhaps with bars."""
    blotch = _smooth(size, int(rng.integers(3, 8)), rng) * rng.uniform(5, 35)
    grain = _smooth(size, int(rng.integers(20, 50)), rng) * rng.uniform(3, 20)
    plane: np.ndarray = blotch + grain
    if rng.random() < 0.4:
        plane = plane + rng.uniform(5, 30) * np.sign(_waves(size, rng))
    tint = rng.uniform(0.6, 1.0, 3).astype(np.float32)
    texture: np.ndarray = _colour(rng) + plane[:, :, None] * tint
    return texture


def _smooth(size: int, cells: int, rng: Rng) -> np.ndarray:
    """(S, S) float32 noise that changes over size / cells pixels."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    noise: np.ndarray = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return noise


def _waves(size: int, rng: Rng) -> np.ndarray:
    """(S, S) float32 sine of 6 to 30 waves over the image."""
    angle, waves = rng.uniform(0, np.pi), rng.uniform(6, 30)
    steps = np.arange(size, dtype=np.float32) * np.float32(2 * np.pi * waves / size)
    phase = np.float32(np.cos(angle)) * steps + np.float32(np.sin(angle)) * steps[:, None]
    sine: np.ndarray = np.sin(phase + np.float32(rng.uniform(0, 6)))
    return sine


def _exposed(canvas: np.ndarray, rng: Rng) -> np.ndarray:
    """(S, S, 3) uint8: a little out of focus, more or less exposed, with noise."""
    image = cv2.GaussianBlur(canvas, (0, 0), len(canvas) / 320 * rng.uniform(0.5, 1.2))
    light = rng.uniform(0.75, 1.2) * rng.uniform(0.92, 1.08, 3)
    noise = np.float32(rng.uniform(1, 6)) * rng.standard_normal(image.shape, dtype=np.float32)
    image = image * light.astype(np.float32) + noise
    pixels: np.ndarray = np.round(image.clip(0, 255)).astype(np.uint8)
    return pixels


def _colour(rng: Rng) -> np.ndarray:
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


# --- a figure -----------------------------------------------------------------------------------------------


def _figure(height: float, rng: Rng) -> list[Part]:
    """Polygons of a figure in pixels, from back to front, of `height` pixels from top to toe where it stands."""
    skin = SKIN[rng.integers(len(SKIN))] * rng.uniform(0.9, 1.1)
    hair = HAIR[rng.integers(len(HAIR))] if rng.random() < 0.8 else _colour(rng)  # or a cap
    top, trousers, shoes = (_colour(rng) for _ in range(3))
    build, skirt = rng.uniform(0.85, 1.3), rng.random() < 0.2
    shoulder, hip = 0.115 * build, 0.075 * build
    lower = skin if rng.random() < 0.5 else top  # bare forearms or long sleeves
    arms = [_arm(side, shoulder, build, (top, lower, skin), rng) for side in (-1, 1)]
    legs = [_leg(side, hip, build, skin if skirt else trousers, shoes, rng) for side in (-1, 1)]
    neck_y, hip_y = 0.17, 0.53
    torso = np.array([(-shoulder, neck_y), (shoulder, neck_y), (hip * 1.25, hip_y), (-hip * 1.25, hip_y)])
    body: list[Part] = [
        (_tapered((0, 0.09), (0, 0.18), 0.028, 0.035), skin * 0.9),
        (_rounded(torso, 0.025), top),
    ]
    if skirt:
        hem = np.array([(-hip * 1.2, 0.5), (hip * 1.2, 0.5), (hip * 2.1, 0.74), (-hip * 2.1, 0.74)])
        body.append((_rounded(hem, 0.01), trousers))
    turn = rng.uniform(-0.02, 0.02)  # of the head
    head: list[Part] = [
        (_ellipse((0, 0.066), (0.052, 0.066)), hair),
        (_ellipse((turn, 0.082), (0.043, 0.05)), skin),
    ]
    behind, before = (arms, []) if rng.random() < 0.5 else ([arms[0]], [arms[1]])
    order = (
        [part for limb in (*behind, *legs) for part in limb]
        + body
        + [part for limb in before for part in limb]
    )
    lean = rng.normal(0, 0.05)
    rotation = np.array([(np.cos(lean), np.sin(lean)), (-np.sin(lean), np.cos(lean))])
    return [
        (points @ rotation * height, colour * rng.uniform(0.85, 1.1)) for points, colour in [*order, *head]
    ]


def _arm(
    side: int, shoulder: float, build: float, colours: tuple[np.ndarray, np.ndarray, np.ndarray], rng: Rng
) -> list[Part]:
    """Upper arm, forearm and hand, of one colour each, which hang, swing or wave; angles from straight down."""
    sleeve, lower, skin = colours
    swing = rng.uniform(0.05, 0.6) if rng.random() < 0.75 else rng.uniform(1.2, 2.6)
    bend = swing + rng.uniform(-0.4, 1.2)
    start = np.array((side * shoulder * 0.95, 0.2))
    elbow = start + 0.16 * np.array((side * np.sin(swing), np.cos(swing)))
    hand = elbow + 0.15 * np.array((side * np.sin(bend), np.cos(bend)))
    return [
        (_tapered(elbow, hand, 0.024 * build, 0.018 * build), lower),
        (_tapered(start, elbow, 0.032 * build, 0.026 * build), sleeve),
        (_ellipse(hand, (0.022, 0.022)), skin),
    ]


def _leg(side: int, hip: float, build: float, cloth: np.ndarray, shoe: np.ndarray, rng: Rng) -> list[Part]:
    """Thigh, shin and foot, standing or in a step."""
    stride = rng.uniform(-0.05, 0.4) if rng.random() < 0.6 else rng.uniform(0, 0.12)
    bend = stride + rng.uniform(-0.45, 0.1)
    start = np.array((side * hip * 0.65, 0.52))
    knee = start + 0.23 * np.array((side * np.sin(stride), np.cos(stride)))
    foot = knee + 0.21 * np.array((side * np.sin(bend), np.cos(bend)))
    toe = foot + np.array((side * 0.035, 0.012))
    return [
        (_tapered(foot, toe, 0.022, 0.02), shoe),
        (_tapered(knee, foot, 0.037 * build, 0.026 * build), cloth),
        (_tapered(start, knee, 0.052 * build, 0.038 * build), cloth),
    ]


# --- things that are no figures: polygons about the origin, of height 1 -------------------------------------


def _post(rng: Rng) -> list[Part]:
    """A pole with a ball or lamp on it."""
    thick, ball = rng.uniform(0.01, 0.05), rng.uniform(0.04, 0.1)
    return [
        (_tapered((0, -0.4), (0, 0.5), thick, thick), _colour(rng)),
        (_ellipse((0, -0.42), (ball, ball)), _colour(rng)),
    ]


def _tree(rng: Rng) -> list[Part]:
    """A trunk, two branches and a crown."""
    wood = _colour(rng)
    crown = [(rng.uniform(-0.15, 0.15, 2) - (0, 0.25), rng.uniform(0.1, 0.22, 2)) for _ in range(3)]
    leaves = _colour(rng)
    return [
        (_tapered((0, -0.1), (0, 0.5), 0.03, 0.06), wood),
        *((_tapered((0, 0.1), (side * 0.18, -0.15), 0.03, 0.02), wood) for side in (-1, 1)),
        *((_ellipse(centre, radii), leaves * rng.uniform(0.85, 1.1)) for centre, radii in crown),
    ]


def _crate(rng: Rng) -> list[Part]:
    """A box with a band."""
    half = rng.uniform(0.15, 0.5)
    corners = np.array([(-half, -0.5), (half, -0.5), (half, 0.5), (-half, 0.5)])
    return [(corners, _colour(rng)), (corners * (1, rng.uniform(0.05, 0.3)), _colour(rng))]


def _table(rng: Rng) -> list[Part]:
    """A board on legs of the width of limbs."""
    wide, wood = rng.uniform(0.3, 0.6), _colour(rng)
    legs = [
        (_tapered((x, -0.2), (x * 1.1, 0.5), 0.035, 0.025), wood) for x in (-wide, -wide / 3, wide / 3, wide)
    ]
    return [*legs, (_tapered((-wide, -0.22), (wide, -0.22), 0.05, 0.05), wood * 0.9)]


def _sign(rng: Rng) -> list[Part]:
    """A board over a post: a torso without head and limbs."""
    half = rng.uniform(0.1, 0.3)
    board = np.array([(-half, -0.45), (half, -0.45), (half, 0.0), (-half, 0.0)])
    return [(_tapered((0, 0), (0, 0.5), 0.03, 0.03), _colour(rng)), (_rounded(board, 0.03), _colour(rng))]


def _cart(rng: Rng) -> list[Part]:
    """A body on two wheels."""
    body = np.array([(-0.6, -0.3), (0.4, -0.3), (0.65, 0.2), (-0.65, 0.2)])
    wheels = [(_ellipse((x, 0.25), (0.18, 0.18)), _colour(rng) * 0.5) for x in (-0.4, 0.4)]
    return [(_rounded(body, 0.05), _colour(rng)), *wheels]


def _sticks(rng: Rng) -> list[Part]:
    """Stray limbs and discs that hang together in no body."""
    ends = rng.uniform(-0.4, 0.4, (int(rng.integers(2, 5)), 2, 2))
    return [
        *((_tapered(a, b, 0.04, 0.03), _colour(rng)) for a, b in ends),
        (_ellipse(rng.uniform(-0.4, 0.4, 2), rng.uniform(0.04, 0.08, 2)), _colour(rng)),
    ]


THINGS: tuple[Callable[[Rng], list[Part]], ...] = (_post, _tree, _crate, _table, _sign, _cart, _sticks)


# --- shapes and layers --------------------------------------------------------------------------------------

Point = np.ndarray | tuple[float, float]

_HALF_TURN = np.linspace(0, np.pi, 7)
_TURN = np.linspace(0, 2 * np.pi, 20, endpoint=False)


def _tapered(start: Point, end: Point, start_radius: float, end_radius: float) -> np.ndarray:
    """(14, 2) outline of a limb with round ends."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    heading = np.arctan2(*(b - a)[::-1])
    back, front = heading + np.pi / 2 + _HALF_TURN, heading - np.pi / 2 + _HALF_TURN
    return np.concatenate(
        [a + start_radius * _directions(back), b + end_radius * _directions(front)]
    )  # (14, 2)


def _ellipse(centre: Point, radii: Point) -> np.ndarray:
    """(20, 2) outline."""
    outline: np.ndarray = np.asarray(centre) + np.asarray(radii) * _directions(_TURN)
    return outline


def _rounded(corners: np.ndarray, radius: float) -> np.ndarray:
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


def _layer(parts: list[Part], size: int, rng: Rng) -> np.ndarray:
    """(S, S, 4) float32 colours, multiplied by their cover, and cover in 0 to 255, of polygons drawn in order."""
    drawn = np.zeros((size, size, 4), np.uint8)
    for points, colour in parts:
        outline = np.round(points * 16).astype(np.int32)  # sixteenths of a pixel
        cv2.fillPoly(drawn, [outline], (*colour.clip(0, 255).tolist(), 255), cv2.LINE_AA, shift=4)
    layer = drawn.astype(np.float32)
    shade = 1 + rng.uniform(0.03, 0.15) * _smooth(size, int(rng.integers(6, 25)), rng)
    if rng.random() < 0.3:  # stripes
        shade = shade + rng.uniform(0.05, 0.3) * _waves(size, rng)
    rows = _rows(layer)
    layer[rows, :, :3] *= shade[rows, :, None].clip(0.3, 1.7).astype(np.float32)
    return layer


def _lay(canvas: np.ndarray, layer: np.ndarray) -> None:
    """Put a layer on a (S, S, 3) canvas, in place."""
    rows = _rows(layer)
    canvas[rows] *= 1 - layer[rows, :, 3:] / 255
    canvas[rows] += layer[rows, :, :3]


def _rows(layer: np.ndarray) -> slice:
    """The rows that a layer covers; the others cost nothing."""
    covered = np.flatnonzero(layer[:, :, 3].max(1))
    return slice(covered[0], covered[-1] + 1) if len(covered) else slice(0)
