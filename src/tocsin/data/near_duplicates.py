"""Images that show the same part: turned, mirrored or lit anew, as published sets hold them.

Two steps. A hash of 64 bits of each image picks the pairs that may be alike; of these, the correlation of their fine
detail, at the angle where it is largest, tells which are. Both look at the largest disc around the centre, unrolled:
there, to turn an image is to shift it along the angle, so any angle will do, and a mirror image runs backwards.

What differs from the usual perceptual hash (signs of a cosine transform of a small image, in eight orientations): it
takes different castings, which all look alike, for the same, and does not know a copy that is turned by
another angle than a quarter (measured in docs/datasets.md). Here the bits say how strong the waves around the centre
are, which neither a turn nor a mirror changes, relative to the median of the set.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from scipy.fft import irfft, rfft
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tocsin.data.image_files import read_image

log = logging.getLogger(__name__)

SIDE = 256  # pixels that images are brought to
ANGLES, RADII = 360, 48  # of the unrolled disc
WAVES = 24  # around the centre, of the hash
HASH_SHAPE = (8, 8)  # waves x radii
BLUR_ANGLES, BLUR_RADII = 3, 1.5  # standard deviations of the shading, in samples
FEW_IMAGES = 100  # so few are compared pair by pair: the median of a small set tells little
CHUNK = 256  # pairs compared at once
LARGE_GROUP = 0.1  # share of the images


def near_duplicate_groups(paths: Sequence[Path], *, distance: int, correlation: float) -> np.ndarray:
    """Find the images that show one part.

    Args:
        paths: N images of any sizes.
        distance: Most bits by which the hashes of a pair may differ for it to be looked at, 0 to 64.
        correlation: Least correlation of the details of a pair of one part, up to 1.

    Returns:
        (N,) int64 number of each image's group: images that a chain of pairs connects.

    Raises:
        DataError: An image cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        discs = np.stack(list(pool.map(unrolled, paths)))  # (N, ANGLES, RADII)
    waves = rfft(discs, axis=1)  # (N, ANGLES / 2 + 1, RADII) complex64
    hashes = hash_waves(waves)
    largest = 64 if len(paths) <= FEW_IMAGES else distance
    details = _details(waves)
    found = [pairs[correlations(details, pairs) >= correlation] for pairs in _close_pairs(hashes, largest)]
    alike = np.concatenate([np.empty((0, 2), dtype=np.int64), *found])
    edges = coo_matrix((np.ones(len(alike)), tuple(alike.T)), shape=(len(paths), len(paths)))
    n_groups, groups = connected_components(edges, directed=False)
    size = np.bincount(groups).max()
    log.info("%d images show %d parts; %d of one are most", len(paths), n_groups, size)
    if size > LARGE_GROUP * len(paths) and size > 2:
        log.warning(
            "data.group_by=phash puts %d of %d images into one group: they may be alike without being copies; raise "
            "data.duplicate_correlation=%g",
            size,
            len(paths),
            correlation,
        )
    return np.asarray(groups, dtype=np.int64)


def unrolled(path: Path) -> np.ndarray:
    """(ANGLES, RADII) float32 of the largest disc around the centre of an image, brought to a square."""
    gray = read_image(path).mean(axis=2)
    square = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    centre = (SIDE - 1) / 2
    # Twice as fine, then averaged: without that the rim would be sampled too thinly.
    disc = cv2.warpPolar(square, (2 * RADII, 2 * ANGLES), (centre, centre), centre, cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(disc, (RADII, ANGLES), interpolation=cv2.INTER_AREA), dtype=np.float32)


def hash_waves(waves: np.ndarray) -> np.ndarray:
    """64 bits of each image: where the waves around its centre are stronger than in half of the images.

    Args:
        waves: (N, W, RADII) complex, amplitudes by number of waves around the centre.

    Returns:
        (N,) uint64.
    """
    strength = np.log1p(np.abs(waves[:, 1 : WAVES + 1]))  # (N, WAVES, RADII)
    cells = np.stack([cv2.resize(one, HASH_SHAPE[::-1], interpolation=cv2.INTER_AREA) for one in strength])
    cells = cells.reshape(len(cells), -1)  # (N, 8, 8) -> (N, 64)
    bits = np.packbits(cells > np.median(cells, axis=0), axis=1)
    hashes: np.ndarray = np.ascontiguousarray(bits).view(np.uint64)[:, 0]
    return hashes


def _close_pairs(hashes: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """(P, 2) pairs whose hashes differ by so many bits at most, in chunks."""
    for first in range(len(hashes)):
        close = np.flatnonzero(np.bitwise_count(hashes[first + 1 :] ^ hashes[first]) <= distance)
        for begin in range(0, len(close), CHUNK):
            second = first + 1 + close[begin : begin + CHUNK]
            yield np.stack([np.full_like(second, first), second], axis=1)


def _details(waves: np.ndarray) -> np.ndarray:
    """The fine detail of each image, of length 1, as waves: (N, ANGLES / 2 + 1, RADII) complex64.

    Shading is taken away by a blur along the angle and across rings, and so is the mean of each ring.
    """
    turns = 2 * np.pi * np.arange(waves.shape[1]) / ANGLES
    along = np.exp(-0.5 * (BLUR_ANGLES * turns) ** 2).astype(np.float32)[:, None]
    details = waves - along * gaussian_filter1d(waves, BLUR_RADII, axis=2)
    details[:, 0] = 0
    energy = np.abs(details) ** 2
    energy[:, 1:-1] *= 2  # waves of a real disc come in pairs
    length = np.sqrt(energy.sum(axis=(1, 2), keepdims=True) / ANGLES).clip(1e-9)
    unit: np.ndarray = (details / length).astype(np.complex64)
    return unit


def correlations(details: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(P,) largest correlation over all turns of (P, 2) pairs, mirrored or not."""
    one, other = details[pairs[:, 0]], details[pairs[:, 1]]  # (P, W, RADII)
    turned = (one * other.conj()).sum(axis=2)  # (P, W)
    mirrored = (one * other).sum(axis=2)
    # At half angles, too: a turn need not be a whole number of samples.
    best: np.ndarray = 2 * irfft(np.stack([turned, mirrored]), n=2 * ANGLES, axis=2).max(axis=(0, 2))
    return best
