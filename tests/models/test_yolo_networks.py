"""Weights come from files, descriptions or the hub; each mistake is one line."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from tocsin.errors import ConfigError
from tocsin.models.standin import _DESCRIPTION
from tocsin.models.yolo_networks import yolo_network


class Hostile:
    """What a file may hold that runs code when it is read."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


@pytest.fixture
def network() -> torch.nn.Module:
    return yolo_network(deepcopy(_DESCRIPTION)).eval()


def test_file_gives_the_weights_back(network: torch.nn.Module, tmp_path: Path) -> None:
    torch.save({"model": network, "train_args": {}}, tmp_path / "own.pt")
    read = yolo_network(str(tmp_path / "own.pt"))
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(read.eval()(images)[0], network(images)[0])
    assert read.args.box > 0  # the weights of the terms of the loss


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    torch.save({"model": Hostile()}, tmp_path / "bad.pt")
    with pytest.raises(ConfigError, match=r"bad\.pt holds no weights of ultralytics"):
        yolo_network(str(tmp_path / "bad.pt"))
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"no weights", "holds no weights of ultralytics"), (b"", "holds no weights of ultralytics")],
)
def test_damaged_file_is_named(content: bytes, error: str, tmp_path: Path) -> None:
    (tmp_path / "odd.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=error):
        yolo_network(str(tmp_path / "odd.pt"))


def test_network_that_detects_nothing_is_refused(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1))}, tmp_path / "conv.pt")
    with pytest.raises(ConfigError, match="holds a Sequential, which detects no boxes"):
        yolo_network(str(tmp_path / "conv.pt"))


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("absent/own.pt", "there is no such file, and the hub has no such name"),
        ("yolov99n.pt", "there is no such file, and the hub has no such name"),
        ("https://somewhere/yolov8n.pt", "is an address; download the file"),
        ("yolov99n.yaml", "ultralytics has no such description"),
    ],
)
def test_unknown_victim_is_named_with_what_is_possible(source: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        yolo_network(source)


def test_hub_without_a_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(file: str) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", offline)
    with pytest.raises(ConfigError, match=r"yolov8n\.pt cannot be fetched .* give its path"):
        yolo_network("yolov8n", cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_hub_is_asked_once(network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def fetch(file: str) -> str:
        if not Path(file).exists():  # it is asked for files that are there too
            asked.append(Path(file).name)
            torch.save({"model": network}, file)
        return file

    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", fetch)
    for _ in range(2):
        assert yolo_network("yolov8n.pt", cache_dir=tmp_path).model[-1].nc == 1
    assert asked == ["yolov8n.pt"]
