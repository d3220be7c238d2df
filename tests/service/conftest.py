"""A folder of trained models that all tests of the service share: tiny ones, trained in this process."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hydra import compose, initialize_config_dir
from test_image_pipeline import draw
from test_pipeline import TINY, waves

from tocsin.cli import settable
from tocsin.composing import register
from tocsin.config import conf_dir
from tocsin.pipeline import train
from tocsin.service.app import create_app
from tocsin.service.settings import Limits, Settings

QUICK = ("trainer=cpu", "logger=none", "callbacks=numbers")


@pytest.fixture(scope="session", autouse=True)
def _workers_rest() -> Iterator[None]:
    """Servers in this process run no patch jobs: what jobs need takes seconds to import for every one of them."""

    @asynccontextmanager
    async def resting(*arguments: Any) -> AsyncIterator[None]:
        yield None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tocsin.service.app.patch_workers", resting)
        yield


def train_here(folder: Path, *overrides: str) -> None:
    """What `train.py` does with these options, with its run folder at `folder`."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        options = [*QUICK, f"trainer.default_root_dir={folder}", *overrides]
        cfg = compose("train", [settable(option) for option in options])
    folder.mkdir(parents=True)
    train(cfg)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with train.csv, test.csv and images."""
    path = tmp_path_factory.mktemp("drawn")
    waves(1200, 0, anomalous=False).to_csv(path / "train.csv", index=False)
    waves(900, 1, anomalous=True).to_csv(path / "test.csv", index=False)
    draw(path / "images" / "train" / "good", 20, seed=0)
    draw(path / "images" / "test" / "good", 4, seed=1)
    draw(path / "images" / "test" / "spot", 4, seed=2, spot=True)
    return path


@pytest.fixture(scope="session")
def models(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of trained models: `mae--series` and `gaussian--folder`."""
    path = tmp_path_factory.mktemp("models")
    series = ["data=series", f"data.train={drawn / 'train.csv'}", f"data.test={drawn / 'test.csv'}"]
    train_here(
        path / "mae" / "series", "model=mae", *series, "data.label_column=label", "data.window=40", "data.stride=20",
        *TINY, "trainer.max_epochs=2", "task.min_duration=3", "data.fill_limit=5",
    )  # fmt: skip
    train_here(
        path / "gaussian" / "folder", "model=pixel_gaussian", "data=folder", f"data.root={drawn / 'images'}",
        "data.height=24", "data.width=40",
    )  # fmt: skip
    return path


@pytest.fixture
def client(models: Path, tmp_path: Path) -> Iterator[TestClient]:
    """Of a server with these models, without keys."""
    limits = Limits(rows=2000, pixels=4000, images=4, streams=2, idle_s=20)
    settings = Settings(
        folder=tmp_path,
        database=f"sqlite:///{tmp_path}/service.db",
        models=models,
        devices="cpu",
        limits=limits,
        hosts=("testserver",),
    )
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a server without models."""
    folder = tmp_path / "service"
    database = f"sqlite:///{folder / 'service.db'}"
    return Settings(folder=folder, database=database, models=tmp_path / "outputs", devices="cpu")


@pytest.fixture
def server(settings: Settings) -> Iterator[TestClient]:
    """Of a server without models or keys."""
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
        yield client
