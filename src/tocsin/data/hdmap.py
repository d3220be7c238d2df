"""The Health Data Map (HDMAP): tooth-by-tooth vibration maps of a planetary gearbox in four domains.

Source: image specification, section 5.1. The layout is `<root>/<domain>/{train/good, test/good, test/fault}` with
32-bit float TIFFs of 31 x 95 pixels that may exceed 1. The real maps are not public: without `root`, a seeded
stand-in is drawn.
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pandas as pd
import tifffile

from tocsin.data.cache import Arguments, cached_folder
from tocsin.data.checks import listed
from tocsin.data.image_base import ImageDataModule
from tocsin.data.image_data import ImageSet
from tocsin.data.image_folders import read_mvtec, subfolders
from tocsin.data.image_resize import ResizeMode
from tocsin.data.synthetic import hdmap as generator
from tocsin.errors import ConfigError, DataError

log = logging.getLogger(__name__)

MANIFEST = "manifest.csv"


@dataclass(kw_only=True, eq=False, repr=False)
class HDMap(ImageDataModule):
    """Learns from the normal maps of one domain; tests on it and, if asked, on others.

    Metadata of an image: `condition` (cold or warm; of the real maps, the first and second half of each test folder)
    and, of the stand-in, `severity` and `row` of the fault.

    Attributes:
        root: Folder of the domains; None draws the stand-in.
        domain: Folder to learn from and to test on.
        target_domains: Further folders to test on; `all` takes all others.
        n_train: Normal training maps of the stand-in.
        n_test: Test maps of each class of the stand-in.
        data_seed: Seed of the stand-in.
        cache_dir: Where the stand-in is kept; None draws it anew.
    """

    # 31 x 95 on an even grid by a border of one pixel: resampling would blur a fault of one or two rows.
    height: int = 32
    width: int = 96
    resize: ResizeMode = "black_padding"

    root: str | Path | None = None
    domain: str = "domain_A"
    target_domains: str | list[str] = field(default_factory=list)
    n_train: int = 500
    n_test: int = 200
    data_seed: int = 42
    cache_dir: str | Path | None = None
    _drawn: list[TemporaryDirectory[str]] = field(init=False, default_factory=list)  # gone with this object
    _targets: dict[str, ImageSet] = field(init=False, default_factory=dict)

    def load(self) -> tuple[ImageSet, ImageSet]:
        if self.root is None:
            log.info("data=hdmap: the maps are a drawn stand-in; data.root=<folder> reads the real ones")
        names = [self.domain, *self._target_names()]
        train, test = self._read(self.domain)
        self._targets = {name: self._read(name)[1] for name in names[1:]}
        return train, test

    @property
    def source(self) -> str:
        return f"{'standin' if self.root is None else Path(self.root).name}/{self.domain}"

    def targets(self) -> dict[str, ImageSet]:
        return self._targets

    def domains(self) -> list[str]:
        """All domains that there are."""
        if self.root is None:
            return list(generator.DOMAINS)
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise DataError(f"data.root={root} is not a folder")
        return [name for name in subfolders(root) if (root / name / "train").is_dir()]

    def _target_names(self) -> list[str]:
        there = self.domains()
        asked = self.target_domains
        if asked == "all":
            asked = [name for name in there if name != self.domain]
        targets = [asked] if isinstance(asked, str) else asked
        for option, name in (("domain", self.domain), *(("target_domains", name) for name in targets)):
            if name not in there:
                raise ConfigError(
                    f"data.{option}={name}: there is no such domain; there are: {listed(there) or 'none'}"
                    + (f" (in {self.root}, the folder above the domains)" if self.root is not None else "")
                )
        if self.domain in targets or len(set(targets)) < len(targets):
            raise ConfigError(f"data.target_domains={listed(targets)}: name each other domain once")
        return targets

    def _read(self, name: str) -> tuple[ImageSet, ImageSet]:
        root = self._draw(name) if self.root is None else Path(self.root).expanduser()
        train, test = read_mvtec(root / name)
        if (root / MANIFEST).is_file():
            table = pd.read_csv(root / MANIFEST).set_index("path")
            return _described(train, root, table), _described(test, root, table)
        return train, replace(test, metadata=pd.DataFrame({"condition": _conditions(test)}))

    def _draw(self, name: str) -> Path:
        """Folder of the stand-in of one domain."""
        arguments: Arguments = {
            "domain": name,
            "n_train": self.n_train,
            "n_test": self.n_test,
            "seed": self.data_seed,
        }

        def write(folder: Path) -> None:
            try:
                maps = generator.domain_maps(
                    name, n_train=self.n_train, n_test=self.n_test, seed=self.data_seed
                )
            except ValueError as error:  # an option out of its range
                raise ConfigError(f"data=hdmap: {error}") from error
            write_domain(maps, folder, name)

        if self.cache_dir is not None:
            return cached_folder(
                write, name=generator.__name__, arguments=arguments, cache_dir=self.cache_dir
            )
        self._drawn.append(TemporaryDirectory(prefix="hdmap-"))
        folder = Path(self._drawn[-1].name)
        write(folder)
        return folder


def write_domain(maps: generator.DomainMaps, folder: Path, name: str) -> None:
    """Write a domain in the layout of the real set, with masks and a manifest that the real set lacks.

    Args:
        maps: Of the domain.
        folder: The folder of the domain is made in it.
        name: Of the domain.
    """
    paths = []
    folders = maps.table["split"] + "/" + maps.table["class"]
    for place in folders.unique():  # in the order of the table, so that paths fit its rows
        rows = np.flatnonzero(folders == place)
        (folder / name / place).mkdir(parents=True)
        truth = folder / name / "ground_truth" / Path(place).name
        if maps.masks[rows].any():
            truth.mkdir(parents=True)
        for number, row in enumerate(rows):
            path = f"{name}/{place}/{number:06}.tiff"
            tifffile.imwrite(folder / path, maps.maps[row])
            paths.append(path)
            if maps.masks[row].any():
                mask = cv2.imencode(".png", maps.masks[row].astype(np.uint8) * 255)[1]
                (truth / f"{number:06}_mask.png").write_bytes(mask.tobytes())
    maps.table.assign(path=paths).to_csv(folder / MANIFEST, index=False)


def _described(images: ImageSet, root: Path, table: pd.DataFrame) -> ImageSet:
    """The images with their rows of the manifest."""
    rows = table.loc[[path.relative_to(root).as_posix() for path in images.paths]]
    return replace(images, metadata=rows[["condition", "severity", "row"]].reset_index(drop=True))


def _conditions(images: ImageSet) -> np.ndarray:
    """(N,) cold for the first half of each class, warm for the second."""
    conditions = np.full(len(images), "cold")
    for name in set(images.classes):
        own = np.flatnonzero(np.asarray(images.classes) == name)
        conditions[own[len(own) // 2 :]] = "warm"
    return conditions
