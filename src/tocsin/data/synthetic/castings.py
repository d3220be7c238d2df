"""A drawn stand-in for images of pump castings from above: a class with defects and one without.

A part is drawn once, with what makes it one of its own (texture, machining marks, stains, defects), and seen several
times: turned, moved, in other light. Views of one part share a group, so a split that ignores groups lets a model
remember parts.

It is difficult on purpose: contrasts go down to what can hardly be seen, sound parts have stains, glints, marks and
specks like the others, and exposure varies more than any defect changes an image. Its numbers say nothing
about real castings.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

SIZE = 224  # pixels of an image
CANVAS = 272  # of a part, with a margin to turn and move it in
RADIUS = 92.0  # of a part, in pixels
MAX_VIEWS = 4
CONTRAST = (0.08, 0.6)  # of a defect, gray levels from 0 to 1

# Gray levels from the centre outwards: hole, hub, cup, groove, flange, rim. Radii are relative to that of the part.
PROFILE_RADII = (0.0, 0.17, 0.19, 0.26, 0.28, 0.50, 0.52, 0.56, 0.58, 0.62, 0.64, 0.97, 0.985)
PROFILE_GRAY = (0.52, 0.50, 0.68, 0.68, 0.20, 0.18, 0.60, 0.60, 0.25, 0.25, 0.62, 0.60, 0.50)
BACKGROUND = 0.55
FLANGE = (0.66, 0.93)  # radii where defects are

_ROW, _COLUMN = np.mgrid[:CANVAS, :CANVAS].astype(np.float32) - (CANVAS - 1) / 2
_DISTANCE = np.hypot(_ROW, _COLUMN)
_ANGLE = np.arctan2(_ROW, _COLUMN)
_DIRECTION = 2 * np.pi * np.arange(360) / 360


@dataclass(frozen=True)
class Castings:
    """Drawn images.

    Attributes:
        images: (N, 224, 224) uint8.
        table: N rows: `label` (defective or ok), `group` (the part), `kind` (of the defect; none for an ok part),
            `contrast` (of the defect, in gray levels from 0 to 1; 0 for an ok part).
    """

    images: np.ndarray
    table: pd.DataFrame


def castings(*, n_defective: int, n_ok: int, seed: int) -> Castings:
    """Draw a set; the same arguments give the same images, bit for bit.

    Args:
        n_defective: Images of defective parts, at least 1.
        n_ok: Images of sound parts, at least 1.
        seed: Of everything.

    Raises:
        ValueError: An argument is out of range.
    """
    counts = {"defective": n_defective, "ok": n_ok}
    for label, count in counts.items():
        if count < 1:
            raise ValueError(f"n_{label}={count} is not a positive number")
    images, rows = [], []
    for label, count in counts.items():
        rng = np.random.default_rng([seed, label == "ok"])
        part = 0
        while count:
            n_views = min(count, int(rng.integers(1, MAX_VIEWS + 1)))
            kind = "none" if label == "ok" else str(rng.choice(list(DEFECTS)))
            contrast = 0.0 if label == "ok" else float(np.exp(rng.uniform(*np.log(CONTRAST))))
            drawn = _part(kind, contrast, rng)
            images += [_view(drawn, rng) for _ in range(n_views)]
            rows += [(label, f"{label}-{part:03}", kind, contrast)] * n_views
            part, count = part + 1, count - n_views
    return Castings(
        images=np.stack(images), table=pd.DataFrame(rows, columns=["label", "group", "kind", "contrast"])
    )


# --- a part -------------------------------------------------------------------------------------------------


def _part(kind: str, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """(CANVAS, CANVAS) float32 gray levels of a part in even light."""
    distance = _DISTANCE / (RADIUS * rng.uniform(0.97, 1.03))
    inside = (distance < 0.985).astype(np.float32)
    levels = np.asarray(PROFILE_GRAY) + rng.normal(0, 0.02, len(PROFILE_GRAY))
    gray: np.ndarray = np.interp(distance, (*PROFILE_RADII, 1.0), (*levels, BACKGROUND)).astype(np.float32)
    blades = np.sin(rng.integers(6, 9) * (_ANGLE + rng.uniform(0, 6)) + 9 * distance)
    gray += 0.05 * blades * ((distance > 0.28) & (distance < 0.5))
    rings = np.convolve(rng.normal(0, 0.035, 160), (0.25, 0.5, 0.25), "same")  # marks of the lathe
    gray += np.interp(_DISTANCE, np.arange(160), rings).astype(np.float32) * inside
    gray += 0.035 * _smooth_noise(2.0, rng) * inside
    gray += 0.03 * _smooth_noise(12.0, rng)
    gray += _distractors(rng) * inside
    if kind != "none":
        gray = DEFECTS[kind](gray, contrast, rng)
    for _ in range(rng.integers(0, 4)):  # specks of dirt beside the part, dark like a hole in it
        _dot(gray, _place(rng, (1.05, 1.3)), rng.uniform(0.8, 3), -rng.uniform(0.1, 0.4))
    return gray


def _smooth_noise(sigma: float, rng: np.random.Generator) -> np.ndarray:
    """(CANVAS, CANVAS) float32 noise of standard deviation 1, smooth over `sigma` pixels."""
    side = int(np.ceil(CANVAS / sigma)) + 4
    coarse = rng.standard_normal((side, side), dtype=np.float32)
    fine = cv2.resize(coarse, (int(side * sigma), int(side * sigma)), interpolation=cv2.INTER_CUBIC)
    noise: np.ndarray = fine[:CANVAS, :CANVAS] / fine.std()
    return noise


def _distractors(rng: np.random.Generator) -> np.ndarray:
    """(CANVAS, CANVAS) what sound and defective parts alike may have: stains, glints, marks along the rings."""
    added = np.zeros((CANVAS, CANVAS), np.float32)
    for _ in range(rng.poisson(1.5)):  # stains: dark as a defect, but soft
        _dot(added, _place(rng, (0.3, 0.95)), rng.uniform(4, 11), -rng.uniform(0.04, 0.25))
    for _ in range(rng.poisson(1.5)):  # glints: sharp, but bright
        _dot(added, _place(rng, (0.2, 0.95)), rng.uniform(0.8, 2.5), rng.uniform(0.1, 0.4))
    for _ in range(rng.poisson(1.5)):  # marks: thin and dark, but along the rings
        radius, begin, length = rng.uniform(*FLANGE) * RADIUS, rng.uniform(0, 360), rng.uniform(15, 90)
        arc = cv2.ellipse2Poly((CANVAS // 2, CANVAS // 2), (int(radius),) * 2, int(begin), 0, int(length), 3)
        _line(added, np.asarray(arc), float(rng.uniform(-0.2, 0.15)), 1)
    return added


# --- defects ------------------------------------------------------------------------------------------------


def _blowhole(gray: np.ndarray, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """A round hole whose far edge glints."""
    place, radius = _place(rng, FLANGE), rng.uniform(1.5, 5)
    _dot(gray, place, radius, -contrast)
    _dot(gray, place + radius * 1.3 * _unit(rng.uniform(0, 2 * np.pi)), radius * 0.5, contrast / 2)
    return gray


def _pinholes(gray: np.ndarray, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """A cluster of small holes."""
    centre = _place(rng, FLANGE)
    for _ in range(rng.integers(3, 10)):
        _dot(gray, centre + rng.normal(0, 7, 2), rng.uniform(0.8, 1.5), -contrast)
    return gray


def _crack(gray: np.ndarray, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """A thin dark line that wanders across the rings."""
    heading = rng.uniform(0, 2 * np.pi)
    headings = heading + np.cumsum(rng.normal(0, 0.35, int(rng.integers(5, 14))))
    steps = 3 * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    _line(gray, _place(rng, FLANGE) + np.cumsum(steps, axis=0), -contrast, 1)
    return gray


def _scratch(gray: np.ndarray, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """A straight bright line across the rings."""
    place = _place(rng, FLANGE)
    outwards = np.arctan2(*(place - CANVAS / 2)[::-1]) + rng.normal(0, 0.5)
    half = rng.uniform(6, 18) * _unit(outwards)
    _line(gray, np.stack([place - half, place + half]), contrast * 0.7, 1)
    return gray


def _shrinkage(gray: np.ndarray, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """A rough, dark patch."""
    patch = np.zeros_like(gray)
    _dot(patch, _place(rng, FLANGE), rng.uniform(5, 10), 1.0)
    rough = (_smooth_noise(2.5, rng) > 0.2).astype(np.float32)
    return gray - contrast * 0.8 * patch * rough


def _chipped_rim(gray: np.ndarray, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """A piece that is missing at the rim: the more contrast, the deeper."""
    begin = rng.uniform(0, 2 * np.pi)
    width, depth = rng.uniform(0.05, 0.16), 2 + 14 * contrast
    angles = begin + np.linspace(-width, width, 9)
    inner = RADIUS - depth * rng.uniform(0.4, 1, 9) * np.cos(np.linspace(-1.5, 1.5, 9))
    radii = np.concatenate([inner, np.full(9, RADIUS * 1.03)])
    angles = np.concatenate([angles, angles[::-1]])
    edge = CANVAS / 2 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    missing = np.zeros_like(gray)
    cv2.fillPoly(missing, [_fixed(edge)], 1.0, cv2.LINE_AA, shift=4)
    missing = np.clip(missing, 0, 1)
    chipped: np.ndarray = gray * (1 - missing) + BACKGROUND * missing
    return chipped


Defect = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
DEFECTS: dict[str, Defect] = {
    "blowhole": _blowhole,
    "pinholes": _pinholes,
    "crack": _crack,
    "scratch": _scratch,
    "shrinkage": _shrinkage,
    "chipped_rim": _chipped_rim,
}


# --- shapes -------------------------------------------------------------------------------------------------


def _unit(angle: float) -> np.ndarray:
    """(2,) x and y of a direction."""
    return np.array([np.cos(angle), np.sin(angle)])


def _place(rng: np.random.Generator, radii: tuple[float, float]) -> np.ndarray:
    """(2,) x and y of a place between two radii, which are relative to that of the part."""
    return CANVAS / 2 + RADIUS * rng.uniform(*radii) * _unit(rng.uniform(0, 2 * np.pi))


def _dot(gray: np.ndarray, place: np.ndarray, sigma: float, height: float) -> None:
    """Add a round hill to a canvas: flat on top for three quarters of `sigma`, then falling off."""
    reach = int(np.ceil(3 * sigma))
    x, y = (int(v) for v in np.clip(np.round(place), reach, CANVAS - 1 - reach))
    rows, columns = slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)
    distance = np.hypot(
        *np.meshgrid(*(np.arange(-reach, reach + 1) - (place - (x, y))[axis] for axis in (0, 1)))
    )
    hill: np.ndarray = height * np.exp(-0.5 * ((distance / sigma - 0.75).clip(0) / 0.5) ** 2)
    gray[rows, columns] += hill.astype(np.float32)


def _line(gray: np.ndarray, points: np.ndarray, height: float, width: int) -> None:
    """Add a thin, smooth line through (P, 2) points to a canvas."""
    drawn = np.zeros((CANVAS, CANVAS), np.uint8)
    cv2.polylines(drawn, [_fixed(points)], False, 255, width, cv2.LINE_AA, shift=4)
    gray += np.float32(height / 255) * drawn


def _fixed(points: np.ndarray) -> np.ndarray:
    """(P, 2) int32 points in sixteenths of a pixel."""
    return np.round(np.asarray(points) * 16).astype(np.int32)


# --- a view -------------------------------------------------------------------------------------------------


def _view(part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(SIZE, SIZE) uint8 image of a part: turned, moved, lit from one side, more or less exposed."""
    centre = ((CANVAS - 1) / 2,) * 2
    turn = cv2.getRotationMatrix2D(centre, rng.uniform(0, 360), rng.uniform(0.96, 1.04))
    moved = (SIZE - CANVAS) / 2 + rng.uniform(-5, 5, 2)
    turn[:, 2] = turn[:, 2] + moved
    view = cv2.warpAffine(part, turn, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    cut = slice((CANVAS - SIZE) // 2, (CANVAS + SIZE) // 2)
    x, y, distance = _COLUMN[cut, cut] / RADIUS, _ROW[cut, cut] / RADIUS, _DISTANCE[cut, cut] / RADIUS
    towards = rng.uniform(0, 2 * np.pi)
    light: np.ndarray = 1 + rng.uniform(0.02, 0.15) * (x * np.cos(towards) + y * np.sin(towards))
    gleam = np.cos(2 * (_ANGLE[cut, cut] - rng.uniform(0, np.pi))) ** 3  # of turned metal: two bright wedges
    light = light + rng.uniform(0, 0.15) * gleam * ((distance > 0.6) & (distance < 1))
    view = rng.uniform(0.7, 1.25) * (view * light).clip(0.01) ** rng.uniform(0.8, 1.25)
    view = cv2.GaussianBlur(view, (0, 0), rng.uniform(0.4, 0.9))
    noise = np.float32(rng.uniform(0.01, 0.025)) * rng.standard_normal(view.shape, dtype=np.float32)
    image: np.ndarray = np.round((view + noise).clip(0, 1) * 255).astype(np.uint8)
    return image
