"""A drawn stand-in for photographs with people: figures of many poses, sizes and colours among things that are none.

A figure has a head, a torso and limbs, stands, walks or waves, and may cover another one or be cut by the border.
Around it are things made of the same shapes and colours (posts, trees, signs, tables, carts, stray sticks), so that
neither a colour nor a disc over a bar gives a figure away. It is for tests and for trying things out without data:
its numbers say nothing about photographs.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from tocsin.data.synthetic.figure_shapes import HAIR, SKIN, Part, Rng, any_colour, ellipse, rounded, tapered
from tocsin.data.synthetic.figure_things import THINGS

HEIGHTS = (0.15, 0.8)  # of a figure, as a share of the image; small ones are more frequent
MAX_FIGURES = 3  # in an image
MIN_VISIBLE = 0.5  # share of a figure that nearer ones must leave
MAX_CUT = 0.2  # share of its height or width that may lie outside the image
TRIES = 12  # places that are tried for a figure behind others


@dataclass(frozen=True)
class Figures:
    """Drawn images and the boxes of the figures in them.

    Attributes:
        images: (N, S, S, 3) uint8 RGB; one to three figures in each.
        boxes: (M, 4) float32, left, top, right, bottom in pixels, around what can be seen of a figure.
        owner: (M,) int64, index of the image a box belongs to, ascending; the farthest figure of an image is first.
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
    for layer in layers:
        _lay(canvas, layer)
    if rng.random() < 0.4:  # a thin thing in front of everything
        place = rng.uniform(0, 1, 2) * size
        stick = tapered(
            place, place + rng.uniform(-0.5, 0.5, 2) * size, *(size * rng.uniform(0.003, 0.008, 2))
        )
        _lay(canvas, _layer([(stick, any_colour(rng))], size, rng))
    return _exposed(canvas, rng), boxes


def _people(size: int, rng: Rng) -> tuple[list[np.ndarray], np.ndarray]:
    """Layers of the figures, the farthest first, and (n, 4) float32 boxes of what can be seen of them."""
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
    return layers[::-1], np.array(boxes[::-1], dtype=np.float32)


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
    texture: np.ndarray = any_colour(rng) + plane[:, :, None] * tint
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


# --- a figure -----------------------------------------------------------------------------------------------


def _figure(height: float, rng: Rng) -> list[Part]:
    """Polygons of a figure in pixels, from back to front, of `height` pixels from top to toe where it stands."""
    skin = SKIN[rng.integers(len(SKIN))] * rng.uniform(0.9, 1.1)
    hair = HAIR[rng.integers(len(HAIR))] if rng.random() < 0.8 else any_colour(rng)  # or a cap
    top, trousers, shoes = (any_colour(rng) for _ in range(3))
    build, skirt = rng.uniform(0.85, 1.3), rng.random() < 0.2
    shoulder, hip = 0.115 * build, 0.075 * build
    lower = skin if rng.random() < 0.5 else top  # bare forearms or long sleeves
    arms = [_arm(side, shoulder, build, (top, lower, skin), rng) for side in (-1, 1)]
    legs = [_leg(side, hip, build, skin if skirt else trousers, shoes, rng) for side in (-1, 1)]
    neck_y, hip_y = 0.17, 0.53
    torso = np.array([(-shoulder, neck_y), (shoulder, neck_y), (hip * 1.25, hip_y), (-hip * 1.25, hip_y)])
    body: list[Part] = [
        (tapered((0, 0.09), (0, 0.18), 0.028, 0.035), skin * 0.9),
        (rounded(torso, 0.025), top),
    ]
    if skirt:
        hem = np.array([(-hip * 1.2, 0.5), (hip * 1.2, 0.5), (hip * 2.1, 0.74), (-hip * 2.1, 0.74)])
        body.append((rounded(hem, 0.01), trousers))
    turn = rng.uniform(-0.02, 0.02)  # of the head
    head: list[Part] = [
        (ellipse((0, 0.066), (0.052, 0.066)), hair),
        (ellipse((turn, 0.082), (0.043, 0.05)), skin),
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
        (tapered(elbow, hand, 0.024 * build, 0.018 * build), lower),
        (tapered(start, elbow, 0.032 * build, 0.026 * build), sleeve),
        (ellipse(hand, (0.022, 0.022)), skin),
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
        (tapered(foot, toe, 0.022, 0.02), shoe),
        (tapered(knee, foot, 0.037 * build, 0.026 * build), cloth),
        (tapered(start, knee, 0.052 * build, 0.038 * build), cloth),
    ]


# --- layers -------------------------------------------------------------------------------------------------


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
