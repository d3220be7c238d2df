"""What a request becomes: a configuration of `train.py` that composes and binds."""

from pathlib import Path

import lightning.pytorch  # noqa: F401  # sets variables of the environment when first imported
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from pydantic import ValidationError

from tocsin import composing
from tocsin.config import check, conf_dir
from tocsin.models.yolo_victim import STANDIN
from tocsin.service.patch_request import (
    DATABASE,
    PatchRequest,
    epochs_of,
    overrides,
    run_overrides,
    victim_source,
)


def asked(**given: object) -> PatchRequest:
    return PatchRequest.model_validate({"dataset": "people", **given})


def composed(
    request: PatchRequest, monkeypatch: pytest.MonkeyPatch, victim: str = "standin", kind: str = "cpu"
) -> DictConfig:
    monkeypatch.setenv(DATABASE, "sqlite:///x.db")
    composing.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", overrides=overrides(request, victim=victim, kind=kind))
    check(cfg)
    return cfg


def test_native_request(monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked(
        dataset="my people.v2", target_class="traffic light", loss="box", iterations=205, learning_rate=0.05,
        patch_size=32, max_images=10, size=640, seed=7,
    )  # fmt: skip
    cfg = composed(request, monkeypatch, victim="/models/it's/${x} v8n.pt")
    assert cfg.model.victim == "/models/it's/${x} v8n.pt"
    assert cfg.model.objective == "raise_box"
    assert (cfg.data.dataset, cfg.data.category, cfg.model.target_class) == (
        "my people.v2",
        "traffic light",
        "traffic light",
    )
    assert (cfg.data.size, cfg.data.max_images, cfg.model.patch_size, cfg.seed) == (640, 10, 32, 7)
    assert (cfg.optimizer.lr, cfg.callbacks.iterations.iterations) == (0.05, 205)
    assert (cfg.trainer.max_epochs, cfg.data.steps_per_epoch) == (41, 5)
    assert cfg.callbacks.early_stopping is None
    assert cfg.data.root == "sqlite:///x.db"


def test_password_of_the_database_stays_out_of_the_configuration() -> None:
    given = overrides(asked(), victim="standin", kind="cpu")
    assert f"data.root=${{oc.env:{DATABASE}}}" in given


@pytest.mark.parametrize(
    ("loss", "objective"), [(None, "vanish_logsumexp"), ("cls", "bce_background"), ("dfl", "raise_dfl")]
)
def test_losses_of_the_native_backend(
    loss: str | None, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert composed(asked(loss=loss), monkeypatch).model.objective == objective


def test_request_for_art(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("art")
    cfg = composed(asked(backend="art", loss="cls", iterations=9), monkeypatch)
    assert cfg.model._target_.endswith("ArtPatch")
    assert (list(cfg.model.losses), cfg.model.iterations, cfg.model.learning_rate) == (["loss_cls"], 9, 0.03)


def test_number_like_names_stay_names(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = composed(asked(dataset="2026", target_class="1e3"), monkeypatch)
    assert (cfg.data.dataset, cfg.data.category) == ("2026", "1e3")


@pytest.mark.parametrize("loss", ["box", "dfl"])
def test_losses_that_do_nothing_are_refused(loss: str) -> None:
    with pytest.raises(ValidationError, match=f"loss={loss} does nothing with backend=art.*backend=native"):
        asked(backend="art", loss=loss)


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": 0}, {"iterations": 10**9}, {"iterations": "5"}, {"iterations": True}, {"size": 100},
        {"size": 4096}, {"patch_size": 4}, {"learning_rate": 0}, {"learning_rate": float("inf")},
        {"seed": -1}, {"max_images": 1}, {"backend": "other"}, {"loss": "all"}, {"unknown": 1},
        {"dataset": ""}, {"dataset": "${oc.env:HOME}"}, {"dataset": "a\x00"}, {"dataset": "a\n"},
        {"target_class": "a'b"}, {"victim": "../x.pt"}, {"victim": "/etc/x.pt"}, {"dataset": "a" * 101},
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        asked(**wrong)


def test_victims_are_files_below_the_models_folder(tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "sub").mkdir(parents=True)
    for path in (models / "sub" / "a.pt", models / "b.ckpt", tmp_path / "outside.pt"):
        path.write_text("")
    (models / "link.pt").symlink_to(tmp_path / "outside.pt")
    assert victim_source("standin", models) == STANDIN
    assert victim_source("sub/a.pt", models) == str(models / "sub" / "a.pt")
    for name in (
        "b.ckpt",
        "missing.pt",
        "sub/../../outside.pt",
        "link.pt",
        "sub",
        "a/" * 99 + "b",
        "x" * 300,
    ):
        assert victim_source(name, models) is None, name


@pytest.mark.parametrize(
    ("iterations", "wanted", "expected"),
    [(50, 10, (5, 10)), (1, 10, (1, 1)), (53, 10, (6, 9)), (997, 10, (100, 10)), (901, 10, (91, 10))],
)
def test_epochs_hold_all_steps_and_little_more(
    iterations: int, wanted: int, expected: tuple[int, int]
) -> None:
    epochs, steps = epochs_of(iterations, wanted)
    assert (epochs, steps) == expected
    assert iterations <= epochs * steps < iterations + steps


def test_start_goes_on_where_there_is_a_checkpoint(tmp_path: Path) -> None:
    first = run_overrides(tmp_path, gpu=False, cache_dir=None)
    assert first == [f"hydra.run.dir='{tmp_path}'", "ckpt_path=null", "trainer=cpu"]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_text("")
    again = run_overrides(tmp_path, gpu=True, cache_dir="/c")
    assert again[1:] == ["ckpt_path=last", "trainer.accelerator=gpu", "trainer.devices=1", "cache_dir='/c'"]
