"""What is pasted as an anomaly: a bank of textures, from which single pixels are taken.

DRAEM (ICCV 2021, section 3.3) pastes images of the Describable Textures Dataset. Here the source is an option: any
folder of images, the training images themselves cut into tiles that change places (as MemSeg, 2022, does for
structural anomalies), or formulae. Where the training images are grey, as maps of sensors are, so are the textures:
colour alone would give them away.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
from torch import Tensor, nn

from tocsin.errors import ConfigError, DataError
from tocsin.models.checks import check_choice, check_range
from tocsin.models.procedural_textures import procedural_textures
from tocsin.models.seeded_draws import SeededDraws

SOURCES = ("procedural", "self", "dir", "mixed")
LEVELS = 256
_TILES = (4, 8)  # rows and columns of tiles
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


class Pixels(NamedTuple):
    """Some pixels of a batch of images.

    Attributes:
        image: (P,) int64, which image of the batch.
        y: (P,) int64, row.
        x: (P,) int64, column.
    """

    image: Tensor
    y: Tensor
    x: Tensor


class TextureBank(nn.Module):
    """Textures of one size, as one tensor of bytes on the device. `fill` it before use; a checkpoint fills it too.

    Args:
        source: `procedural`, `self`, `dir`, or `mixed`: equal parts of all (of `dir`, if there is one).
        directory: Folder of images for `dir` and `mixed`, searched with its subfolders.
        n: Textures in the bank.

    Raises:
        ValueError: If a value is outside its range.
        ConfigError: `dir` without a directory.
    """

    pixels: Tensor
    cumulative: Tensor
    grey: Tensor

    def __init__(self, *, source: str, directory: str | None, n: int) -> None:
        super().__init__()
        check_choice("texture_source", source, SOURCES)
        check_range("n_textures", n, n >= len(SOURCES), f"at least {len(SOURCES)}")
        if source == "dir" and directory is None:
            raise ConfigError("texture_source=dir needs a folder: texture_dir=...")
        self.source, self.directory, self.n = source, directory, n
        self.register_buffer("pixels", torch.empty(0, 1, 1, 3, dtype=torch.uint8))  # (N, H, W, 3)
        # Share of a texture's pixels up to each level, for what depends on a whole texture (equalisation).
        self.register_buffer("cumulative", torch.empty(0, 3, LEVELS))
        self.register_buffer("grey", torch.tensor(False))

    def __len__(self) -> int:
        return len(self.pixels)

    def fill(self, images: Tensor) -> None:
        """Make the textures, in the size of the training images.

        Args:
            images: (M, 3, H, W) float32 on any device, training images in [0, 1]; values beyond are cut off.

        Raises:
            ConfigError: There is no such folder.
            DataError: The folder holds no image that can be read.
        """
        images = images.cpu()
        sources = [self.source]
        if self.source == "mixed":
            sources = ["procedural", "self", *(["dir"] if self.directory is not None else [])]
        parts = []
        for index, source in enumerate(sources):
            count = len(range(index, self.n, len(sources)))
            parts.append(_bytes(self._made(source, count, images)))
        pixels = torch.cat(parts)
        grey = (images == images[:, :1]).all()
        self.grey = grey.to(self.grey.device)
        self.cumulative = _cumulative(pixels).to(self.cumulative.device)
        self.pixels = pixels.permute(0, 2, 3, 1).contiguous().to(self.pixels.device)

    def _made(self, source: str, count: int, images: Tensor) -> Tensor:
        H, W = images.shape[2:]
        if source == "procedural":
            return procedural_textures(count, (H, W))
        if source == "dir":
            return _read(Path(str(self.directory)).expanduser(), count, (H, W))
        chosen = torch.arange(count) % len(images)
        return permuted_tiles(images[chosen].clamp(0.0, 1.0), SeededDraws(torch.arange(count)))

    def values(self, texture: Tensor, pixels: Pixels) -> Tensor:
        """Levels (P, 3) int64 in [0, 255] of these pixels, each of the texture that is its image's (B,).

        Rows and columns beyond a texture, whose size is that of the training images, start again at its other end.
        """
        H, W = self.pixels.shape[1:3]
        place = (texture[pixels.image] * H + pixels.y % H) * W + pixels.x % W  # (P,)
        return self.pixels.flatten(0, 2)[place].long()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take on the size of the bank in the checkpoint."""
        for name in ("pixels", "cumulative"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.grey.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _bytes(images: Tensor) -> Tensor:
    return (images * (LEVELS - 1)).round().clamp(0, LEVELS - 1).byte()


def _cumulative(pixels: Tensor) -> Tensor:
    """Share (N, 3, 256) of the pixels of each texture (N, 3, H, W) and channel up to each level."""
    flat = pixels.flatten(2).flatten(0, 1).long()  # (N * 3, H * W)
    counts = torch.zeros(len(flat), LEVELS).scatter_add_(1, flat, torch.ones(flat.shape))
    return (counts.cumsum(dim=1) / flat.shape[1]).reshape(*pixels.shape[:2], LEVELS)  # (N, 3, 256)


def permuted_tiles(images: Tensor, draws: SeededDraws) -> Tensor:
    """Images (B, 3, H, W) cut into four rows of eight tiles, which change places; rests at the ends are repeated."""
    B, C, H, W = images.shape
    rows, columns = min(_TILES[0], H), min(_TILES[1], W)
    high, wide = H // rows, W // columns
    y, x = torch.meshgrid(torch.arange(H) % (rows * high), torch.arange(W) % (columns * wide), indexing="ij")
    tile = draws.permutation(rows * columns)[:, (y // high) * columns + x // wide]  # (B, H, W)
    source_y = tile // columns * high + y % high
    source_x = tile % columns * wide + x % wide
    index = (source_y * W + source_x).flatten(1)[:, None].expand(B, C, H * W)
    return images.flatten(2).gather(2, index).reshape(images.shape)  # (B, C, H, W)


def _read(directory: Path, count: int, size: tuple[int, int]) -> Tensor:
    """Up to `count` images of a folder, evenly over its sorted files, as (N, 3, H, W) float32 in [0, 1]."""
    if not directory.is_dir():
        raise ConfigError(f"texture_dir={directory} is not a folder")
    files = sorted(path for path in directory.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise DataError(f"texture_dir={directory} holds no image ({', '.join(sorted(_SUFFIXES))})")
    chosen = [files[i] for i in torch.linspace(0, len(files) - 1, min(count, len(files))).long().tolist()]
    return torch.stack([_read_one(path, size) for path in chosen])


def _read_one(path: Path, size: Sequence[int]) -> Tensor:
    found = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if found is None:
        raise DataError(f"{path} cannot be read as an image: remove it from texture_dir")
    resized = cv2.resize(
        cv2.cvtColor(found, cv2.COLOR_BGR2RGB), (size[1], size[0]), interpolation=cv2.INTER_AREA
    )
    return torch.from_numpy(resized).permute(2, 0, 1).float() / (LEVELS - 1)
