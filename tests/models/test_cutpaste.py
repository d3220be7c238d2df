import pytest
import torch

from tocsin.models.cutpaste import draw_strips, strip_masks, strip_values
from tocsin.models.seeded_draws import SeededDraws
from tocsin.models.textures import Pixels

SIZES = [(31, 95), (128, 128), (3, 3), (64, 40)]


def draws(n: int) -> SeededDraws:
    return SeededDraws(torch.arange(n))


@pytest.mark.parametrize("size", SIZES)
def test_strips_lie_inside_and_never_overlap_their_origin(size: tuple[int, int]) -> None:
    strips = draw_strips(size, draws(2_000))
    for corner in (strips.source, strips.target):
        assert (corner >= 0).all()
        assert (corner + strips.size <= torch.tensor(size)).all()
    assert (strips.size >= 1).all()
    target = strip_masks(strips, size)
    source = strip_masks(strips._replace(target=strips.source), size)
    assert not (target & source).any()
    assert torch.equal(target.sum(dim=(1, 2)), strips.size.prod(dim=1))


def test_strips_have_the_published_shapes_and_reach_every_row() -> None:
    strips = draw_strips((128, 128), draws(3_000))
    height, width = strips.size.T
    assert (int(height.min()), int(height.max())) == (4, 8)
    assert (int(width.min()), int(width.max())) == (2, 127)
    assert strip_masks(strips, (128, 128)).any(dim=2).any(dim=0).all()
    assert (
        abs(float((strips.target < strips.source)[:, 0].float().mean()) - 0.5) < 0.05
    )  # above as often as below


def test_values_are_the_strip_at_its_origin_divided_by_its_peak() -> None:
    images = 3.0 * torch.rand(5, 3, 20, 30) - 1.0
    strips = draw_strips((20, 30), draws(5))
    pixels = Pixels(*strip_masks(strips, (20, 30)).nonzero(as_tuple=True))
    values, shown = strip_values(images, pixels, strips)
    assert shown.all()
    for index in range(5):
        (top, left), (height, width) = strips.source[index].tolist(), strips.size[index].tolist()
        cut = images[index, :, top : top + height, left : left + width]
        torch.testing.assert_close(
            values[pixels.image == index], (cut / cut.abs().max()).flatten(1).T, rtol=1e-5, atol=1e-6
        )


def test_a_strip_of_nothing_adds_nothing() -> None:
    strips = draw_strips((20, 30), draws(2))
    pixels = Pixels(*strip_masks(strips, (20, 30)).nonzero(as_tuple=True))
    images = torch.stack([torch.zeros(3, 20, 30), torch.ones(3, 20, 30)])
    values, shown = strip_values(images, pixels, strips)
    assert shown.tolist() == [False, True]
    assert torch.equal(values, (pixels.image == 1).float()[:, None].expand_as(values))
