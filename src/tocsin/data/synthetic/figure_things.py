"""Things that are no figures: polygons about the origin, of height 1, each drawn anew from random numbers."""

from collections.abc import Callable

import numpy as np

from tocsin.data.synthetic.figure_shapes import Part, Rng, any_colour, ellipse, rounded, tapered


def _post(rng: Rng) -> list[Part]:
    """A pole with a ball or lamp on it."""
    thick, ball = rng.uniform(0.01, 0.05), rng.uniform(0.04, 0.1)
    return [
        (tapered((0, -0.4), (0, 0.5), thick, thick), any_colour(rng)),
        (ellipse((0, -0.42), (ball, ball)), any_colour(rng)),
    ]


def _tree(rng: Rng) -> list[Part]:
    """A trunk, two branches and a crown."""
    wood = any_colour(rng)
    crown = [(rng.uniform(-0.15, 0.15, 2) - (0, 0.25), rng.uniform(0.1, 0.22, 2)) for _ in range(3)]
    leaves = any_colour(rng)
    return [
        (tapered((0, -0.1), (0, 0.5), 0.03, 0.06), wood),
        *((tapered((0, 0.1), (side * 0.18, -0.15), 0.03, 0.02), wood) for side in (-1, 1)),
        *((ellipse(centre, radii), leaves * rng.uniform(0.85, 1.1)) for centre, radii in crown),
    ]


def _crate(rng: Rng) -> list[Part]:
    """A box with a band."""
    half = rng.uniform(0.15, 0.5)
    corners = np.array([(-half, -0.5), (half, -0.5), (half, 0.5), (-half, 0.5)])
    return [(corners, any_colour(rng)), (corners * (1, rng.uniform(0.05, 0.3)), any_colour(rng))]


def _table(rng: Rng) -> list[Part]:
    """A board on legs of the width of limbs."""
    wide, wood = rng.uniform(0.3, 0.6), any_colour(rng)
    legs = [
        (tapered((x, -0.2), (x * 1.1, 0.5), 0.035, 0.025), wood) for x in (-wide, -wide / 3, wide / 3, wide)
    ]
    return [*legs, (tapered((-wide, -0.22), (wide, -0.22), 0.05, 0.05), wood * 0.9)]


def _sign(rng: Rng) -> list[Part]:
    """A board over a post: a torso without head and limbs."""
    half = rng.uniform(0.1, 0.3)
    board = np.array([(-half, -0.45), (half, -0.45), (half, 0.0), (-half, 0.0)])
    return [(tapered((0, 0), (0, 0.5), 0.03, 0.03), any_colour(rng)), (rounded(board, 0.03), any_colour(rng))]


def _cart(rng: Rng) -> list[Part]:
    """A body on two wheels."""
    body = np.array([(-0.6, -0.3), (0.4, -0.3), (0.65, 0.2), (-0.65, 0.2)])
    wheels = [(ellipse((x, 0.25), (0.18, 0.18)), any_colour(rng) * 0.5) for x in (-0.4, 0.4)]
    return [(rounded(body, 0.05), any_colour(rng)), *wheels]


def _sticks(rng: Rng) -> list[Part]:
    """Stray limbs and discs that hang together in no body."""
    ends = rng.uniform(-0.4, 0.4, (int(rng.integers(2, 5)), 2, 2))
    return [
        *((tapered(a, b, 0.04, 0.03), any_colour(rng)) for a, b in ends),
        (ellipse(rng.uniform(-0.4, 0.4, 2), rng.uniform(0.04, 0.08, 2)), any_colour(rng)),
    ]


THINGS: tuple[Callable[[Rng], list[Part]], ...] = (_post, _tree, _crate, _table, _sign, _cart, _sticks)
