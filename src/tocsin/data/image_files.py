"""Images and masks from files, at the depth they were stored with.

Source: image specification, section 5.2. Readers that go through 8-bit RGB cut 16-bit images to their top byte and
float maps to [0, 1]. This one goes by the dtype: 8 and 16 bits keep their values until they are scaled to [0, 1],
floats stay as they are, however large.
"""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import tifffile

from tocsin.data.checks import one_line
from tocsin.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
TIFF_SUFFIXES = (".tif", ".tiff")
FULL_SCALE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}  # of integer pixels


def image_files(folder: Path) -> list[Path]:
    """The image files right in a folder, by name; hidden files and others are left alone."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def read_image(path: str | Path) -> np.ndarray:
    """Read an image.

    Args:
        path: PNG, JPEG, BMP, WebP or TIFF; gray or colour.

    Returns:
        (H, W, C) float32, C = 1 (gray) or 3 (RGB, alpha dropped). Files of 8 or 16 bits in [0, 1], floats as stored.

    Raises:
        DataError: The file is missing, damaged, no image, holds pixels of another type, or NaN or infinite ones.
    """
    return scaled(read_pixels(path))


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask.

    Returns:
        (H, W) bool, true (anomalous) where any channel is above 0.

    Raises:
        DataError: As for `read_image`.
    """
    mask: np.ndarray = np.any(read_pixels(path) > 0, axis=-1)
    return mask


def scaled(pixels: np.ndarray) -> np.ndarray:
    """Pixels of any shape and dtype of `read_pixels` as float32: integers in [0, 1], floats as they are."""
    full = FULL_SCALE.get(pixels.dtype)
    values = pixels.astype(np.float32, copy=False)
    return values if full is None else values / np.float32(full)


def read_pixels(path: str | Path) -> np.ndarray:
    """Read an image in the type of its pixels.

    Returns:
        (H, W, C) uint8, uint16, float16 or float32 (from float64, too), C = 1 or 3.

    Raises:
        DataError: As for `read_image`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from error
    return decode_pixels(data, path)


def decode_pixels(data: bytes, path: Path) -> np.ndarray:
    """Decode what stands in an image file; as `read_pixels`.

    Args:
        data: The bytes of the file.
        path: Its name, whose suffix tells a TIFF.

    Raises:
        DataError: As for `read_image`.
    """
    if not data:
        raise DataError(f"{path}: is empty; copy it again, or take it out of the folder")
    decoded = _decode_tiff(data, path) if path.suffix.lower() in TIFF_SUFFIXES else None
    return _checked(_decode(data, path) if decoded is None else decoded, path)


def _decode(data: bytes, path: Path) -> np.ndarray:
    """(H, W) or (H, W, C) with channels in the order of RGB."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"{path}: is damaged or no image; copy it again, or take it out of the folder")
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = pixels[:, :, 2::-1]  # from BGR or BGRA
    return pixels


def _decode_tiff(data: bytes, path: Path) -> np.ndarray | None:
    """(H, W) or (H, W, C); None for what is better left to `_decode` (palettes, inverted or packed pixels)."""
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
            packed = page.compression not in (
                tifffile.COMPRESSION.NONE,
                tifffile.COMPRESSION.ADOBE_DEFLATE,
                tifffile.COMPRESSION.DEFLATE,
            )
            if packed or not plain:
                return None
            pixels: np.ndarray = file.asarray()
    except (ValueError, IndexError, struct.error, zlib.error, tifffile.TiffFileError) as error:
        raise DataError(f"{path}: is damaged or no TIFF: {one_line(error)}; write it again") from error
    return pixels


def _checked(pixels: np.ndarray, path: Path) -> np.ndarray:
    """(H, W, C) of a decoded array, its type and values checked."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] > 4 or pixels.size == 0:
        raise DataError(
            f"{path}: holds an array of shape {pixels.shape}; one gray or colour image (H, W[, C]) is needed"
        )
    pixels = pixels[:, :, : 3 if pixels.shape[2] >= 3 else 1]  # without alpha
    if pixels.dtype in (np.bool_, np.float64):
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused below
            pixels = pixels.astype(np.float32)
    if pixels.dtype not in (*FULL_SCALE, np.float16, np.float32):
        raise DataError(f"{path}: holds {pixels.dtype} pixels; write uint8, uint16 or float32 ones")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        row, column, _ = np.argwhere(~np.isfinite(pixels))[0]
        raise DataError(
            f"{path}: pixel (row {row}, column {column}) is NaN or infinite; mend it or leave the file out"
        )
    return np.ascontiguousarray(pixels)
