"""Archives that strangers send: looked through before anything is unpacked, and unpacked within limits.

What is taken out of a zip is what a data set needs: `instances.json` (or the only other JSON file) and `images/`, as
COCO is stored, or `images/`, `labels/` and names of the classes, as for YOLO; all of it may lie in one folder. Names
that lead elsewhere, links, encrypted files, other archives, and contents that are larger than they may be or than
they claim are refused.

Source: D. Fifield, A better zip bomb (WOOT 2019), for files that share their bytes.
"""

import errno
import os
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tocsin.data.checks import listed, one_line
from tocsin.data.detection_files import INSTANCES
from tocsin.data.image_files import IMAGE_SUFFIXES
from tocsin.data.yolo_txt import NAMES, SETTINGS
from tocsin.service.answers import Refused
from tocsin.service.settings import Limits

PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar", ".jar")
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
END = struct.Struct("<4s4H2LH")  # the record at the end: its mark, 2 disks, 2 counts, size and place, comment
MAX_RATIO, RATIO_FROM = 200, 64 * 2**20  # of a whole archive, once it is that large unpacked
DAMAGES = (  # of a reader that believes what the archive says
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    NotImplementedError,
)
MAX_NAME, MAX_PART, MAX_DEPTH = 1000, 255, 16
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a data set needs of an archive.

    Attributes:
        instances: The COCO file; None of YOLO.
        files: Path in the data set of each file that is unpacked, by its entry.
    """

    instances: zipfile.ZipInfo | None
    files: dict[PurePosixPath, zipfile.ZipInfo]


def unpack(file: BinaryIO, folder: Path, limits: Limits) -> Found:
    """Unpack what a data set needs of a zip archive.

    Args:
        file: The archive.
        folder: Empty; `instances.json` or `labels/`, `images/` and names of classes are put there.
        limits: Of the server.

    Raises:
        Refused: It is no such archive, or holds what is not taken; part of it may lie in the folder.
    """
    _check_end(file, limits)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _checked(archive.infolist(), _size(file), limits)
            found = _sorted(entries)
            _check_labels(found, limits)
            _extract(archive, found, folder)
    except DAMAGES as error:
        raise Refused(422, f"the archive is damaged: {one_line(error)}; pack it anew") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the start of the file
            raise
        raise Refused(422, "the archive is damaged: its list leads nowhere; pack it anew") from error
    return found


# --- before it is opened ------------------------------------------------------------------------------------


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _check_end(file: BinaryIO, limits: Limits) -> None:
    """Check the number of files that the last record claims, as reading their list takes memory for each.

    Archives with a comment, or with the long records that only more than 65535 files or 4 GB need, are refused: what
    the last record says cannot be misread then.
    """
    size = _size(file)
    file.seek(max(0, size - END.size - 20))
    tail = file.read()
    mark, _, _, _, count, length, _, comment = END.unpack(tail[-END.size :].ljust(END.size))
    if mark != b"PK\5\6" or comment or len(tail) < END.size:
        raise Refused(422, "the file is no zip archive, or one with a comment; pack it anew as a plain zip")
    if tail[: -END.size][-20:-16] == b"PK\6\7" or count == 0xFFFF:
        raise Refused(413, "the archive holds too many files; send several of fewer")
    if count > limits.files or length > count * (MAX_NAME + 500):
        raise Refused(
            413,
            f"the archive holds {count} files, more than {limits.files}; raise limits.files, or send fewer",
        )


# --- its list of files --------------------------------------------------------------------------------------


def _checked(
    entries: Sequence[zipfile.ZipInfo], size: int, limits: Limits
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files of an archive by path, all of which may be unpacked."""
    if len(entries) > limits.files:
        raise Refused(413, f"the archive holds more than {limits.files} files; send fewer")
    files: dict[PurePosixPath, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    for entry in entries:
        path = _safe_path(entry)
        if entry.is_dir():
            continue
        _check_kind(entry, path)
        alike = unicodedata.normalize("NFC", str(path)).casefold()
        if alike in seen:
            raise Refused(422, f"{_shown(entry)} is in the archive twice; leave one")
        seen.add(alike)
        if not set(JUNK) & set(path.parts) and not path.name.startswith("._"):
            files[path] = entry
    if inside := next((path for path in files if not files.keys().isdisjoint(path.parents)), None):
        raise Refused(422, f"{str(inside)!r} lies in what is a file of the archive; rename one")
    total, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    if total > limits.unpacked_mb * 2**20:
        raise Refused(
            413,
            f"the archive is {total / 2**20:.0f} MB large when unpacked, more than {limits.unpacked_mb:g}; send "
            "less, or raise limits.unpacked_mb",
        )
    if packed > size:
        raise Refused(
            422, "the archive claims more than it holds: files of it share their bytes; pack it anew"
        )
    if total > RATIO_FROM and total > MAX_RATIO * max(packed, 1):
        raise Refused(
            413, f"the archive would grow {total // max(packed, 1)} times when unpacked; it is refused"
        )
    return files


def _safe_path(entry: zipfile.ZipInfo) -> PurePosixPath:
    """Path of an entry, which stays in the folder it is unpacked to."""
    name = entry.orig_filename
    parts = name.rstrip("/").split("/")
    faulty = (
        name != entry.filename
        or not name.isprintable()
        or "\\" in name
        or ":" in parts[0]
        or any(part in ("", ".", "..") for part in parts)
        or len(name) > MAX_NAME
        or len(parts) > MAX_DEPTH
        or any(len(part.encode()) > MAX_PART for part in parts)
    )
    if faulty:
        raise Refused(
            422,
            f"the archive names a file {_shown(entry)}; names must be plain, short paths that lead nowhere else",
        )
    return PurePosixPath(*parts)


def _check_kind(entry: zipfile.ZipInfo, path: PurePosixPath) -> None:
    """It is a plain file that can be read."""
    mode = stat.S_IFMT(entry.external_attr >> 16)
    if entry.create_system == 3 and mode not in (0, stat.S_IFREG):  # 3: written on Unix
        raise Refused(422, f"{_shown(entry)} is a link or no plain file; put the file itself there")
    if entry.flag_bits & 0x41:  # encrypted, weakly or strongly
        raise Refused(422, f"{_shown(entry)} is encrypted; pack it without a password")
    if entry.compress_type not in METHODS:
        raise Refused(
            422, f"{_shown(entry)} is packed in a way that is not read; use deflate, as zip does by default"
        )
    if path.suffix.lower() in PACKED:
        raise Refused(422, f"{_shown(entry)} is an archive in the archive; put what it holds there instead")


def _shown(entry: zipfile.ZipInfo) -> str:
    text = repr(entry.orig_filename)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _sorted(files: dict[PurePosixPath, zipfile.ZipInfo]) -> Found:
    """What of an archive belongs to a data set."""
    if not files:
        raise Refused(
            422, "the archive is empty; put instances.json and images/ there, or images/ and labels/"
        )
    tops = {path.parts[0] for path in files}
    if len(tops) == 1 and not tops & {"images", "labels"} and all(len(path.parts) > 1 for path in files):
        files = {PurePosixPath(*path.parts[1:]): entry for path, entry in files.items()}
    images = {
        path: entry
        for path, entry in files.items()
        if path.parts[0] == "images" and len(path.parts) > 1 and path.suffix.lower() in IMAGE_SUFFIXES
    }
    if not images:
        raise Refused(422, f"the archive has no images in images/; {', '.join(IMAGE_SUFFIXES)} are taken")
    labels = {
        path: entry for path, entry in files.items() if path.parts[0] == "labels" and path.suffix == ".txt"
    }
    json = {path: entry for path, entry in files.items() if path.suffix == ".json" and len(path.parts) == 1}
    instances = json.get(PurePosixPath(INSTANCES))
    if instances is None and labels:
        names = {
            PurePosixPath(name): files[PurePosixPath(name)]
            for name in (NAMES, SETTINGS)
            if PurePosixPath(name) in files
        }
        return Found(instances=None, files={**names, **labels, **images})
    if instances is None and len(json) != 1:
        held = f"it has {listed([path.name for path in json])}" if json else "it has neither"
        raise Refused(422, f"the archive needs {INSTANCES} (COCO) or labels/ (YOLO) beside images/; {held}")
    instances = instances or next(iter(json.values()))
    return Found(instances=instances, files={PurePosixPath(INSTANCES): instances, **images})


def _check_labels(found: Found, limits: Limits) -> None:
    size = sum(entry.file_size for path, entry in found.files.items() if path.parts[0] != "images")
    if size > limits.labels_mb * 2**20:
        raise Refused(
            413,
            f"the boxes in the archive take {size / 2**20:.0f} MB, more than {limits.labels_mb:g}; leave masks out, "
            "or raise limits.labels_mb",
        )


# --- unpacking ----------------------------------------------------------------------------------------------


def _extract(archive: zipfile.ZipFile, found: Found, folder: Path) -> None:
    """Write the files, none longer than its entry says, whatever it holds."""
    for path, entry in found.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink, CHUNK)
            if sink.tell() != entry.file_size:
                raise zipfile.BadZipFile(f"{_shown(entry)} is not as long as it claims")
