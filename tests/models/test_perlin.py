import math

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate
from torch import Tensor

from tocsin.models.perlin import largest_exponent, perlin_masks, perlin_noise, rotated
from tocsin.models.seeded_draws import SeededDraws


def draws(n: int, start: int = 0) -> SeededDraws:
    return SeededDraws(torch.arange(start, start + n))


# --- draws --------------------------------------------------------------------------------------------------


def test_draws_are_uniform_and_independent() -> None:
    found = draws(2_000).uniform(20)
    assert float(found.min()) >= 0
    assert float(found.max()) < 1
    histogram = torch.histc(found, 16, 0, 1) / found.numel()
    torch.testing.assert_close(histogram, torch.full((16,), 1 / 16), atol=0.005, rtol=0)
    between_draws = torch.corrcoef(found.T)
    assert float((between_draws - torch.eye(20)).abs().max()) < 0.1
    assert abs(float(torch.corrcoef(torch.stack([found[:-1].flatten(), found[1:].flatten()]))[0, 1])) < 0.02


def test_draws_of_an_image_do_not_depend_on_those_beside_it() -> None:
    whole, alone = draws(10), draws(1, start=7)
    assert torch.equal(whole.uniform(5)[7:8], alone.uniform(5))
    rows = torch.tensor([7, 2])
    assert torch.equal(whole.at(rows).uniform(3), whole.uniform(3)[rows])
    assert not torch.equal(whole.uniform(3), draws(10).uniform(3))  # a later draw is another one


def test_whole_numbers_and_orders_are_what_they_say() -> None:
    counts = draws(600).integers(10, n=6).flatten().bincount()
    assert len(counts) == 6
    assert float((counts / 1_000 - 1).abs().max()) < 0.15
    orders = draws(600).permutation(4)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(4).expand(600, 4))
    assert float((orders.float().mean(dim=0) - 1.5).abs().max()) < 0.15


# --- noise --------------------------------------------------------------------------------------------------


def reference_noise(cells: tuple[int, int], size: tuple[int, int], angles: Tensor) -> Tensor:
    """Pixel by pixel, corner by corner."""

    def fade(t: float) -> float:
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    noise = torch.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            v, u = row / size[0] * cells[0], column / size[1] * cells[1]
            i, j = int(v), int(u)
            values = [
                [
                    math.cos(angles[i + a, j + b]) * (u - j - b)
                    + math.sin(angles[i + a, j + b]) * (v - i - a)
                    for b in (0, 1)
                ]
                for a in (0, 1)
            ]
            s, t = fade(v - i), fade(u - j)
            upper, lower = (values[a][0] + t * (values[a][1] - values[a][0]) for a in (0, 1))
            noise[row, column] = math.sqrt(2) * (upper + s * (lower - upper))
    return noise


def test_noise_is_perlins() -> None:
    cells = torch.tensor([[2.0, 4.0], [1.0, 2.0], [4.0, 1.0]])
    found = perlin_noise(cells, (16, 24), draws(3))
    angles = draws(3).uniform(5, 5, high=2 * math.pi)
    for index in range(3):
        shape = int(cells[index, 0]), int(cells[index, 1])
        torch.testing.assert_close(
            found[index], reference_noise(shape, (16, 24), angles[index]), atol=1e-4, rtol=0
        )


def test_lattices_have_up_to_32_cells_but_none_of_less_than_four_pixels() -> None:
    sides = (3, 7, 8, 31, 32, 64, 95, 128, 256, 1024)
    assert [largest_exponent(side) for side in sides] == [0, 0, 1, 2, 3, 4, 4, 5, 5, 5]


# --- rotation -----------------------------------------------------------------------------------------------


def test_a_quarter_turn_is_exact() -> None:
    image = torch.rand(2, 3, 9, 9)
    quarter = torch.full((2,), math.pi / 2)
    turned = rotated(image, quarter)
    ways = [float((turned - image.rot90(k, (2, 3))).abs().max()) for k in (1, -1)]
    assert min(ways) < 1e-5
    torch.testing.assert_close(rotated(image, torch.zeros(2)), image)


def test_a_turn_keeps_shapes_in_an_image_that_is_not_square() -> None:
    """A disc stays a disc of the same area at the same place; in stretched coordinates it would not."""
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(96) - 47.5, indexing="ij")
    disc = ((y**2 + x**2) < 10**2).float().expand(1, 1, 32, 96)
    turned = rotated(disc, torch.tensor([0.7]))
    assert float((turned - disc).abs().mean()) < 0.01


# --- masks --------------------------------------------------------------------------------------------------


def test_masks_have_the_area_of_the_published_ones() -> None:
    """5 % of the pixels, and few are empty: measured on the published way with the same lattices."""
    masks = perlin_masks((128, 128), draws(400))
    area = masks.float().mean(dim=(1, 2))
    assert masks.dtype == torch.bool
    assert 0.035 < float(area.mean()) < 0.06
    assert float((area == 0).float().mean()) < 0.1
    assert float(area.max()) > 0.1
    assert len({mask.numpy().tobytes() for mask in masks[area > 0]}) == int(
        (area > 0).sum()
    )  # no two the same


@pytest.mark.parametrize("size", [(31, 95), (32, 96), (5, 7)])
def test_small_and_odd_sizes_have_masks_too(size: tuple[int, int]) -> None:
    masks = perlin_masks(size, draws(300))
    assert masks.shape == (300, *size)
    assert float(masks.float().mean()) > 0.01
    assert float(masks.any(dim=2).any(dim=1).float().mean()) > 0.25


def test_masks_are_noise_that_is_turned_and_cut() -> None:
    masks, again = perlin_masks((64, 64), draws(20)), draws(20)
    exponents = torch.stack([again.integers(n=5), again.integers(n=5)], dim=1)
    degrees = again.uniform(low=-90, high=90)
    noise = perlin_noise(2.0**exponents, (64, 64), again)
    turned = [rotate(noise[i].numpy(), float(degrees[i]), reshape=False, order=1) > 0.5 for i in range(20)]
    assert float((masks == torch.from_numpy(np.stack(turned))).float().mean()) > 0.995
    assert not torch.equal(masks, noise > 0.5)
