"""A server of an application in this process, and its settings."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tocsin.service.app import create_app
from tocsin.service.settings import Settings

HERE = "http://127.0.0.1:8000"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "service"
    return Settings(
        folder=folder,
        database=f"sqlite:///{folder / 'service.db'}",
        models=tmp_path / "outputs",
        devices="cpu",
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url=HERE) as client:
        yield client
