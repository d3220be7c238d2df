"""Images that strangers send: their headers are read, by the readers of known kinds alone, before any pixel is."""

from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from tocsin.data.box_file import BoxFile
from tocsin.service.answers import Refused
from tocsin.service.settings import Limits

KINDS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "I;16B", "I;16L", "F")


def claimed_size(image: Path | BinaryIO, name: str, limits: Limits) -> tuple[int, int]:
    """Height and width of an image, from its header.

    Args:
        image: File.
        name: For messages.
        limits: Of the server.

    Raises:
        Refused: It is no image of a known kind, or claims more pixels than are taken.
    """
    try:
        with Image.open(image, formats=KINDS) as opened:
            (width, height), mode = opened.size, opened.mode
    except Image.DecompressionBombError as error:
        raise _too_many(name, limits) from error
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,
        TypeError,
        KeyError,
        IndexError,
        OverflowError,
        EOFError,
    ) as error:
        raise Refused(
            422, f"{name} is damaged or no image; PNG, JPEG, BMP, WebP and TIFF are taken"
        ) from error
    if width * height > limits.pixels:
        raise _too_many(name, limits)
    if width < 1 or height < 1 or mode not in MODES:
        raise Refused(422, f"{name} has no pixels that can be read; save it as PNG or JPEG")
    return height, width


def check_pictures(file: BoxFile, limits: Limits) -> None:
    """Check that the images of a data set are some, and as large as its boxes were drawn on.

    Raises:
        Refused: One is none, too large, or of another size.
    """
    for name, size in zip(file.file_names, file.sizes.tolist(), strict=True):
        stored = claimed_size(file.folder / name, f"images/{name}", limits)
        if stored != tuple(size):
            raise Refused(
                422,
                f"images/{name} is {stored[1]} x {stored[0]} pixels, but its boxes were drawn on {size[1]} x "
                f"{size[0]} (width x height); send the image that was annotated",
            )


def _too_many(name: str, limits: Limits) -> Refused:
    return Refused(
        413, f"{name} claims more than {limits.pixels} pixels; make it smaller, or raise limits.pixels"
    )
