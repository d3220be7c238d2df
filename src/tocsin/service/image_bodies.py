"""From the body of a request to images. Headers are read first: what claims to be huge is never decoded."""

import io
import math
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import tifffile
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from tocsin.data.image_reader import ImageReader
from tocsin.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DEFLATE = (tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)


class SentImage(NamedTuple):
    """An image as it was sent."""

    name: str
    data: bytes


def read_images(sent: Sequence[SentImage], reader: ImageReader, *, pixels: int) -> Tensor:
    """Decode images as the model wants them.

    Args:
        sent: N images.
        reader: Of the model.
        pixels: Most pixels of an image.

    Returns:
        (N, 3, H, W) float32.

    Raises:
        DataError: One is no image, damaged, or has more pixels.
    """
    return torch.stack([read_image(one, reader, pixels=pixels) for one in sent])


def read_image(sent: SentImage, reader: ImageReader, *, pixels: int) -> Tensor:
    """Decode one image; as `read_images`."""
    is_tiff = sent.data.startswith(TIFF_STARTS)
    count = _tiff_pixels(sent) if is_tiff else _pixels(sent)
    if count > pixels:
        raise DataError(
            f"{sent.name} has {count} pixels, more than limits.pixels={pixels}; send a smaller image"
        )
    if is_tiff:
        _check_strips(sent)
    return reader.decode(sent.data, f"{sent.name}.tif" if is_tiff else sent.name)


def _pixels(sent: SentImage) -> int:
    """Pixels that the header claims."""
    try:
        with Image.open(io.BytesIO(sent.data), formats=FORMATS) as image:
            return image.width * image.height
    except Image.DecompressionBombError as error:
        raise DataError(f"{sent.name} claims more pixels than any image has; send a smaller one") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, struct.error) as error:
        raise DataError(f"{sent.name} is no image that can be read; send PNG, JPEG, BMP or TIFF") from error


def _tiff_pixels(sent: SentImage) -> int:
    """Pixels of all pages that would be decoded together, each sample counted."""
    try:
        with tifffile.TiffFile(io.BytesIO(sent.data)) as file:
            return int(max(math.prod(file.series[0].shape), math.prod(file.pages.first.shape)))
    except TIFF_ERRORS as error:
        raise DataError(f"{sent.name} is damaged or no TIFF; write it again") from error


def _check_strips(sent: SentImage) -> None:
    """Refuse compressed strips that hold more than their share of the image: they would be unpacked whole."""
    try:
        with tifffile.TiffFile(io.BytesIO(sent.data)) as file:
            page = file.pages.first
            if page.compression not in DEFLATE:
                return
            size = math.prod(page.chunks) * (page.dtype.itemsize if page.dtype else 1)
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                strip = sent.data[offset : offset + count]
                if len(zlib.decompressobj().decompress(strip, size + 1)) > size:
                    raise DataError(
                        f"{sent.name}: a strip holds more than its part of the image; write it again"
                    )
    except TIFF_ERRORS as error:
        raise DataError(f"{sent.name} is damaged or no TIFF; write it again") from error


TIFF_ERRORS = (
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    zlib.error,
    tifffile.TiffFileError,
)
