"""Models are loaded once, kept, make room for others; and classes over HTTP, which share their way with images."""

import asyncio
import gc
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from omegaconf import OmegaConf
from test_class_pipeline import KINDS, draw

from tocsin.checkpoints import read_checkpoint
from tocsin.prediction import predict
from tocsin.service import loaded_models
from tocsin.service.app import create_app
from tocsin.service.loaded_models import LoadedModels, NoScorerError, load_model
from tocsin.service.model_store import ModelStore
from tocsin.service.settings import Limits, Settings

TINY = (
    "model=classifier", "data=defects", "data.height=24", "data.width=40", "trainer.max_epochs=1",
    "model.backbone=test_resnet", "model.weights=random", "model.head=linear", "model.freeze_epochs=0",
)  # fmt: skip


def settings_of(models: Path, n_kept: int) -> Settings:
    return Settings(models=models, devices="cpu", limits=Limits(models=n_kept))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that are loaded, in order."""
    names: list[str] = []
    whole = load_model

    def counted(card, devices):  # type: ignore[no-untyped-def]
        names.append(card.name)
        return whole(card, devices)

    monkeypatch.setattr(loaded_models, "load_model", counted)
    return names


def test_those_who_ask_together_get_the_same_model(models: Path, loads: list[str]) -> None:
    async def main() -> None:
        kept = LoadedModels(settings_of(models, 2))
        first, second = await asyncio.gather(*(kept.get("gaussian--folder") for _ in range(2)))
        assert first is second is await kept.get("gaussian--folder")
        await kept.close()

    asyncio.run(main())
    assert loads == ["gaussian--folder"]


def test_the_model_that_was_used_least_recently_makes_room(
    models: Path, tmp_path: Path, loads: list[str]
) -> None:
    for name in "abc":
        shutil.copytree(models / "gaussian" / "folder", tmp_path / name)

    async def main() -> None:
        kept = LoadedModels(settings_of(tmp_path, 2))
        for name in "abacab":
            await kept.get(name)
        assert loads == ["a", "b", "c", "b"]
        await kept.close()

    asyncio.run(main())
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("score")]


def test_patches_and_models_of_traces_give_no_scores(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = ModelStore(models).find("mae--series")
    with pytest.raises(NoScorerError, match="is a patch and gives no scores; see /v1/patches"):
        load_model(replace(card, kind="detection"), "cpu")
    checkpoint = read_checkpoint(card.checkpoint)
    checkpoint["config"]["data"]["layout"] = "traces"
    monkeypatch.setattr(loaded_models, "read_checkpoint", lambda path: checkpoint)
    with pytest.raises(NoScorerError, match=r"one trace per row; score them with predict\.py"):
        load_model(card, "cpu")


def test_a_model_that_gives_no_scores_is_a_conflict(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(card, devices):  # type: ignore[no-untyped-def]
        raise NoScorerError("model x is a patch")

    monkeypatch.setattr(loaded_models, "load_model", refuse)
    answer = client.post("/v1/models/mae--series/score", json={"rows": []})
    assert (answer.status_code, answer.json()) == (409, {"error": "model x is a patch"})


# --- classes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `data` of three classes and `models/classes`."""
    from conftest import train_here  # type: ignore[attr-defined]

    path = tmp_path_factory.mktemp("parts")
    for seed, kind in enumerate(KINDS):
        draw(path / "data" / kind, 20 if kind == "good" else 12, seed, kind)
    train_here(path / "models" / "classes", *TINY, f"data.root={path / 'data'}")
    return path


def test_classes_as_predict_says_them(parts: Path, tmp_path: Path) -> None:
    files = [parts / "data" / kind / "000.png" for kind in KINDS]
    for path in files:
        shutil.copy(path, tmp_path / f"{path.parent.name}.png")
    checkpoint = parts / "models" / "classes" / "checkpoints" / "best.ckpt"
    cfg = OmegaConf.create(read_checkpoint(checkpoint)["config"])
    more = {"ckpt_path": str(checkpoint), "input": str(tmp_path), "output": str(tmp_path / "scores.csv")}
    predict(OmegaConf.merge(cfg, {**more, "contributions": False}))  # type: ignore[arg-type]
    table = pd.read_csv(tmp_path / "scores.csv")
    sent = [("images", (f"{path.parent.name}.png", path.read_bytes(), "image/png")) for path in files]
    settings = replace(
        settings_of(parts / "models", 1),
        folder=tmp_path / "service",
        database=f"sqlite:///{tmp_path}/service/service.db",
    )
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        answer = client.post("/v1/models/classes/score", files=sorted(sent, key=lambda one: one[1][0])).json()
        refused = client.post("/v1/models/classes/score", files=sent, params={"heatmap": True})
    assert answer["images"] == ["good.png", "hole.png", "stripe.png"]
    assert answer["classes"] == table["class"].tolist()
    np.testing.assert_allclose(answer["probabilities"], table["probability"], rtol=1e-5)
    np.testing.assert_allclose(answer["scores"], table["score"], rtol=1e-4, atol=1e-6)
    assert answer["verdicts"] == table["is_anomaly"].astype(bool).tolist()
    assert answer["unsure"] == table["unsure"].astype(bool).tolist()
    assert refused.status_code == 422
    assert "has no heat map" in refused.json()["error"]
