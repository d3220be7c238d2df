"""An ensemble made of checkpoints, and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tocsin import cli
from tocsin.checkpoints import read_checkpoint
from tocsin.config import conf_dir
from tocsin.errors import ConfigError, TocsinError
from tocsin.models.ensemble import Ensemble, RankScorer
from tocsin.pipeline import build_datamodule, build_task, train
from tocsin.scoring import ErrorScorer
from tocsin.tasks.series_anomaly import SeriesAnomaly
from tocsin.tasks.series_results import SeriesResults

DATA = ["data=sliding", "data.total_length=60000", "callbacks=numbers", "logger=none", "cache_dir=null"]


def config(folder: Path, *overrides: str) -> DictConfig:
    cli.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=[*DATA, f"trainer.default_root_dir={folder}", *overrides])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two runs and the ensemble of both."""
    folder = tmp_path_factory.mktemp("runs")
    found = {name: folder / name for name in ("pca", "kmeans", "ensemble")}
    for name in ("pca", "kmeans"):
        train(config(found[name], f"model={name}"))
    train(config(found["ensemble"], "model=ensemble", f"model.members={members(found)}"))
    return found


def members(runs: dict[str, Path]) -> str:
    return f"[{','.join(str(runs[name] / 'checkpoints' / 'best.ckpt') for name in ('pca', 'kmeans'))}]"


def vus_pr(run: Path) -> float:
    import json

    return float(json.loads((run / "metrics.json").read_text())["test"]["vus_pr"])


def test_an_ensemble_scores_and_lies_between_or_above_its_members(runs: dict[str, Path]) -> None:
    single = [vus_pr(runs["pca"]), vus_pr(runs["kmeans"])]
    assert min(single) < vus_pr(runs["ensemble"])


def test_its_checkpoint_needs_no_member(runs: dict[str, Path]) -> None:
    checkpoint = read_checkpoint(runs["ensemble"] / "checkpoints" / "best.ckpt")
    cfg = DictConfig(checkpoint["config"])
    cfg.cache_dir = None
    datamodule = build_datamodule(cfg, state=checkpoint["data"])
    task = build_task(cfg, checkpoint["dims"], checkpoint=checkpoint)
    assert isinstance(task, SeriesAnomaly)
    assert isinstance(task.detector, Ensemble)
    import lightning.pytorch as L

    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    results = task.assess(trainer, datamodule)
    assert isinstance(results, SeriesResults)
    with np.load(runs["ensemble"] / "scores.npz") as arrays:
        np.testing.assert_allclose(results.scores, arrays["scores"], rtol=1e-5)


def test_rank_of_a_score_is_how_rare_it_is() -> None:
    normal = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    plain: Any = dict(widths=(1,), smooth=1)
    scorer = RankScorer(members=[ErrorScorer(**plain), ErrorScorer(**plain)], sizes=[1, 1]).fit(normal)
    scores = scorer(normal)
    # Two independent members, each with the mean of -log10(u): 1 / ln(10).
    assert float(scores.mean()) == pytest.approx(1 / np.log(10), rel=0.02)
    far = scorer(torch.tensor([[6.0, 0.0], [9.0, 0.0], [9.0, 9.0]]))
    assert scores.max() * 0.5 < far[0] < far[1] < far[2]  # beyond all that was seen, ranks go on


def test_units_of_the_members_do_not_matter() -> None:
    normal = torch.randn(5_000, 3, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor([1.0, 1.0, 500.0])

    def fitted(values: torch.Tensor) -> torch.Tensor:
        return RankScorer(members=[ErrorScorer(), ErrorScorer()], sizes=[2, 1]).fit(values)(values)

    torch.testing.assert_close(fitted(normal), fitted(normal * scale), rtol=1e-3, atol=1e-3)


def test_state_loads_into_a_fresh_scorer() -> None:
    normal = torch.randn(500, 3)
    scorer = RankScorer(members=[ErrorScorer(), ErrorScorer()], sizes=[2, 1]).fit(normal)
    fresh = RankScorer(members=[ErrorScorer(), ErrorScorer()], sizes=[2, 1])
    with pytest.raises(RuntimeError, match="not fitted"):
        fresh(normal)
    fresh.load_state_dict(scorer.state_dict())
    assert torch.equal(fresh(normal), scorer(normal))


def test_what_does_not_fit_is_named(runs: dict[str, Path], tmp_path: Path) -> None:
    both = f"model.members={members(runs)}"
    with pytest.raises(ConfigError, match=r"model.members must name two or more checkpoints"):
        train(config(tmp_path, "model=ensemble"))
    with pytest.raises(TocsinError, match=r"nowhere.ckpt: there is no such file"):
        train(config(tmp_path, "model=ensemble", "model.members=[nowhere.ckpt,b.ckpt]"))
    with pytest.raises(ConfigError, match=r"best.ckpt has window=100, but these data have 50"):
        train(config(tmp_path, "model=ensemble", both, "data.window=50"))
    with pytest.raises(ConfigError, match="was trained on data scaled in another way"):
        train(config(tmp_path, "model=ensemble", both, "data.scaling=standard"))
