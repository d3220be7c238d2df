import colorsys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from tocsin.errors import ConfigError, DataError
from tocsin.models import texture_colours
from tocsin.models.procedural_textures import FAMILIES, procedural_textures
from tocsin.models.seeded_draws import SeededDraws
from tocsin.models.texture_colours import AUGMENTATIONS, hue_matrices
from tocsin.models.textures import Pixels, TextureBank, permuted_tiles

SIZE = (24, 40)


def photos(n: int = 3) -> Tensor:
    return torch.rand(n, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def bank(source: str = "procedural", images: Tensor | None = None, **options: object) -> TextureBank:
    made = TextureBank(**{"source": source, "directory": None, "n": 14, **options})
    made.fill(photos() if images is None else images)
    return made


def all_pixels(n_images: int) -> Pixels:
    grid = torch.meshgrid(torch.arange(n_images), *map(torch.arange, SIZE), indexing="ij")
    return Pixels(*(part.flatten() for part in grid))


def colours(made: TextureBank, n: int = 20) -> Tensor:
    """One augmented texture for each of n images, (n, H, W, 3)."""
    found = texture_colours.texture_colours(made, all_pixels(n), SeededDraws(torch.arange(n)), SIZE)
    return found.reshape(n, *SIZE, 3)


def unpacked(made: TextureBank) -> Tensor:
    return made.pixels.permute(0, 3, 1, 2).float() / 255


# --- sources ------------------------------------------------------------------------------------------------


def test_formulae_make_textures_that_differ_and_span_the_levels() -> None:
    made = procedural_textures(4 * len(FAMILIES), SIZE)
    assert made.shape == (4 * len(FAMILIES), 3, *SIZE)
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1
    assert float(made.std()) > 0.2
    within = made.std(dim=(2, 3)).mean(dim=1)  # (N,)
    for family in range(len(FAMILIES)):
        assert float(within[family :: len(FAMILIES)].max()) > 0.05, FAMILIES[family]
    assert len({texture.numpy().tobytes() for texture in made}) == len(made)
    assert float((made[:, 0] - made[:, 1]).abs().mean()) > 0.1  # they have colours
    assert torch.equal(made, procedural_textures(len(made), SIZE))
    assert not torch.equal(made, procedural_textures(len(made), SIZE, seed=1))


def test_tiles_of_an_image_change_places_and_nothing_is_lost() -> None:
    image = photos(1)
    moved = permuted_tiles(image, SeededDraws(torch.tensor([5])))
    assert not torch.equal(moved, image)
    assert torch.equal(moved.flatten().sort().values, image.flatten().sort().values)
    tile = image[0, :, 6:12, 10:15]  # of 6 by 5 pixels
    blocks = moved[0].unfold(1, 6, 6).unfold(2, 5, 5).permute(1, 2, 0, 3, 4).flatten(0, 1)
    assert sum(torch.equal(block, tile) for block in blocks) == 1
    odd = torch.rand(2, 3, 31, 95)
    assert permuted_tiles(odd, SeededDraws(torch.arange(2))).shape == odd.shape


def test_textures_of_the_training_images_are_made_of_their_tiles() -> None:
    images = photos()
    made = bank("self", images)
    assert len(made) == 14
    expected = permuted_tiles(images[torch.arange(14) % 3], SeededDraws(torch.arange(14)))
    torch.testing.assert_close(unpacked(made), expected, atol=1 / 255, rtol=0)


def test_values_beyond_one_are_cut_off_in_textures() -> None:
    made = unpacked(bank("self", 3 * photos() - 1))
    assert float((made == 1).float().mean()) == pytest.approx(1 / 3, abs=0.05)


def test_a_folder_of_images_is_read_with_its_subfolders(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    red = np.zeros((50, 30, 3), np.uint8)
    red[..., 2] = 255  # OpenCV's order is blue, green, red
    cv2.imwrite(str(tmp_path / "deep" / "red.png"), red)
    cv2.imwrite(str(tmp_path / "a.JPG"), np.full((20, 20, 3), 100, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    made = unpacked(bank("dir", directory=str(tmp_path)))
    assert made.shape == (2, 3, *SIZE)
    torch.testing.assert_close(made[0], torch.full((3, *SIZE), 100 / 255), atol=0.01, rtol=0)
    torch.testing.assert_close(made[1].mean(dim=(1, 2)), torch.tensor([1.0, 0.0, 0.0]))


def test_mixed_textures_are_of_all_sources(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 20, 3), 100, np.uint8))
    without, made = bank("mixed"), unpacked(bank("mixed", directory=str(tmp_path)))
    assert len(without) == 14
    grey = (made - 100 / 255).abs().amax(dim=(1, 2, 3)) < 0.01
    assert int(grey.sum()) == 1
    assert len(made) == 5 + 5 + 1  # as many as there are, at most a third


def test_faults_of_the_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"texture_source=dir needs a folder: texture_dir=\.\.\."):
        TextureBank(source="dir", directory=None, n=8)
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        bank("dir", directory=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="holds no image"):
        bank("dir", directory=str(tmp_path))
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(DataError, match=r"broken\.png cannot be read as an image: remove it"):
        bank("dir", directory=str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "web"}, "texture_source='web' is not one of 'procedural'"),
        ({"n": 3}, "n_textures=3 is not at least 4"),
    ],
)
def test_error_says_what_is_possible(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextureBank(**{"source": "self", "directory": None, "n": 8, **changes})


def test_bank_is_in_the_checkpoint() -> None:
    made = bank("self")
    fresh = TextureBank(source="self", directory=None, n=14)
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(colours(fresh), colours(made))


# --- colours ------------------------------------------------------------------------------------------------


def test_each_image_gets_three_changes_of_ten_and_all_occur() -> None:
    assert len(AUGMENTATIONS) == 10
    chosen = SeededDraws(torch.arange(500)).permutation(10) < texture_colours.N_AUGMENTATIONS
    assert torch.equal(chosen.sum(dim=1), torch.full((500,), 3))
    assert float((chosen.float().mean(dim=0) - 0.3).abs().max()) < 0.07


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these be the changes that every image gets."""
    others = [name for name in AUGMENTATIONS if name not in names]
    monkeypatch.setattr(texture_colours, "N_AUGMENTATIONS", len(names))
    order = torch.tensor([AUGMENTATIONS.index(name) for name in (*names, *others)]).argsort()
    real = SeededDraws.permutation
    monkeypatch.setattr(
        SeededDraws, "permutation", lambda self, n: order.expand(len(self), n) if n == 10 else real(self, n)
    )


def plain(made: TextureBank, n: int = 20) -> Tensor:
    """The textures of the n images without any change, (n, H, W, 3)."""
    return made.pixels[SeededDraws(torch.arange(n)).integers(n=len(made))].float() / 255


def test_without_changes_pixels_are_those_of_the_texture(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bank("self")
    only(monkeypatch)
    torch.testing.assert_close(colours(made), plain(made), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_change_does_something_and_stays_in_range(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bank("self", 0.2 + 0.5 * photos())
    only(monkeypatch, name)
    found = colours(made, 40)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    moved = (found - plain(made, 40)).abs().mean(dim=(1, 2, 3)) > 1e-3
    assert float(moved.float().mean()) > (0.3 if name in ("solarise", "posterise") else 0.8)


def test_changes_are_what_their_names_say(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bank("self", 0.2 + 0.5 * photos())
    before = plain(made)
    with monkeypatch.context() as patch:
        only(patch, "invert")
        torch.testing.assert_close(colours(made), 1 - before, atol=1e-5, rtol=0)
    with monkeypatch.context() as patch:
        only(patch, "autocontrast")
        low, high = before.amin(dim=(1, 2), keepdim=True), before.amax(dim=(1, 2), keepdim=True)
        torch.testing.assert_close(colours(made), (before - low) / (high - low), atol=1e-5, rtol=0)
    with monkeypatch.context() as patch:
        only(patch, "equalise")
        sorted_levels = colours(made).flatten(1, 2).sort(dim=1).values  # (n, H * W, 3), now evenly spread
        even = torch.linspace(0, 1, sorted_levels.shape[1])[:, None].expand(-1, 3)
        assert float((sorted_levels - even).abs().max()) < 0.05
    with monkeypatch.context() as patch:
        only(patch, "gamma")
        exponent = (colours(made)[before > 0].log() / before[before > 0].log()).reshape(-1)
        assert 0.5 <= float(exponent.min()) < 0.7
        assert 1.4 < float(exponent.max()) <= 2.0
    with monkeypatch.context() as patch:
        only(patch, "rotation")
        assert float((colours(made)[:, 12, 20] - before[:, 12, 20]).abs().max()) < 1e-5  # the centre stays
    with monkeypatch.context() as patch:
        only(patch, "posterise")
        levels = [len(image.unique()) for image in colours(made)]
        assert min(levels) == 2  # one bit
        assert max(levels) > 16


def test_sharpness_moves_pixels_from_or_to_the_mean_of_their_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = bank("self", 0.4 + 0.1 * photos())
    only(monkeypatch, "sharpness")
    found, before = colours(made), plain(made)
    mean = sum(before.roll(shift, axis) for axis in (1, 2) for shift in (1, -1)) / 4
    factor = ((found - mean) / (before - mean))[(before - mean).abs() > 0.02]
    assert 0.1 <= float(factor.min()) < 0.5
    assert 1.5 < float(factor.max()) <= 1.9 + 1e-3


def test_hue_matrices_turn_hues_and_keep_grey() -> None:
    angles = torch.tensor([0.5, -1.0, 0.0])
    matrices = hue_matrices(angles, torch.tensor([1.0, 1.0, 0.5]))
    grey = torch.full((3,), 0.4)
    torch.testing.assert_close(matrices @ grey, grey.expand(3, 3))
    colour = torch.tensor([0.6, 0.4, 0.4])  # a little red: hue 0
    hues = [colorsys.rgb_to_hsv(*(matrix @ colour).tolist())[0] for matrix in matrices]
    assert hues[0] == pytest.approx(0.5 / (2 * np.pi), abs=0.02)
    assert hues[1] == pytest.approx(1 - 1 / (2 * np.pi), abs=0.02)
    halved = matrices[2] @ colour
    torch.testing.assert_close(halved - halved.mean(), 0.5 * (colour - colour.mean()))


def test_grey_images_get_grey_textures() -> None:
    grey = photos()[:, :1].expand(-1, 3, -1, -1)
    for source in ("procedural", "self", "mixed"):
        found = colours(bank(source, grey), 60)
        assert float((found - found[..., :1]).abs().max()) < 1e-6
        assert float(found.std()) > 0.1
    coloured = colours(bank("procedural"), 60)
    assert float((coloured - coloured[..., :1]).abs().mean()) > 0.05
