"""The task of patches, with a victim whose confidence in a person is how bright it is."""

import io
import json
from functools import partial
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tocsin.batch import DetectionBatch
from tocsin.data.coco_person import CocoPerson
from tocsin.errors import ConfigError
from tocsin.metrics.box_matching import ImageBoxes
from tocsin.models.base import Detections, PatchModel
from tocsin.results import write_metrics
from tocsin.tasks import patch_attack
from tocsin.tasks.patch_attack import MAX_SNAPSHOTS, PatchAttack
from tocsin.tasks.patch_evaluation import PLACED, SPOILT, evaluate_patch, look
from tocsin.tasks.patch_results import PatchResults, strongest_control

S = 64
BOX = (16.0, 8.0, 48.0, 56.0)  # of the person in every image


class Bright(PatchModel):
    """Sees one person per image, as surely as the middle of its box is bright; patches cover a share of the box."""

    def __init__(self, start: float = 0.5) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.full((3, 4, 4), start))

    @property
    def patch(self) -> Tensor:
        return self.values.clamp(0, 1)

    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        return {"loss": self.patch.mean() + 0 * batch.image.mean()}

    def apply_patch(
        self,
        batch: DetectionBatch,
        patch: Tensor | None = None,
        *,
        size: float | None = None,
        rotation: float = 0.0,
    ) -> Tensor:
        side = round((size or 0.25) * 64)
        shown = self.patch if patch is None else patch
        tile = nn.functional.interpolate(shown[None], size=(side, side))[0]
        images = batch.image.clone()
        for owner in batch.owner[batch.target].tolist():
            images[owner, :, 16 : 16 + side, 24 : 24 + side] = tile
        return images

    def detect(self, images: Tensor) -> Detections:
        n = len(images)
        scores = images[:, :, 18:30, 26:38].mean(dim=(1, 2, 3))
        return Detections(torch.tensor([BOX]).expand(n, 4), scores.clamp(0.001, 1), torch.arange(n))


def batches() -> list[DetectionBatch]:
    """Two batches, of three and two bright images with a person each."""
    made = []
    for first, n in ((0, 3), (3, 2)):
        images = torch.full((n, 3, S, S), 0.9)
        index = torch.arange(n)
        yes, no = torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
        made.append(DetectionBatch(images, index + first, torch.tensor([BOX]).expand(n, 4), index, yes, no))
    return made


def evaluated(model: Bright, **options: object) -> PatchResults:
    with torch.no_grad():
        found = evaluate_patch(model, batches(), seed=0, **{"victims": {}, "sweeps": False, **options})  # type: ignore[arg-type]
        patch = model.patch.numpy()
    return PatchResults.of(found, patch=patch, growth=[], sheet_cm=10.0, items_per_s=1.0)


# --- evaluation ---------------------------------------------------------------------------------------------


def test_images_of_all_batches_are_numbered_through() -> None:
    found = look(Bright().detect, lambda batch: batch.image, batches())
    assert found.owner.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found.confidence, 0.9, rtol=1e-5)


def test_dark_patch_loses_everyone_and_bright_controls_nobody() -> None:
    results = evaluated(Bright(start=0.1))
    assert results.test["vanish_25"] == results.test["vanish_50"] == 1.0
    assert results.test["ap50_clean"] == results.test["ap50_patch"] == 1.0  # their order is the same
    assert results.test["confidence_change"] == pytest.approx(0.1 - 0.9, abs=1e-5)
    assert results.conditions["white"]["vanish_25"] == 0.0
    assert results.conditions["gray"]["vanish_25"] == 0.0
    assert results.baselines["clean"]["vanish_25"] == 0.0
    assert results.test["ap50"] == results.test["ap50_patch"]
    assert results.test["vanish_25_control"] == 1.0  # one colour, shuffled, is the same patch
    assert set(results.baselines) == {"clean", "gray", "white", "noise", "mosaic", "shuffled"}


def test_precision_of_those_who_wear_a_patch_leaves_out_the_others() -> None:
    """Nobody finds the small person beside the large one, who wears no patch."""
    small = torch.tensor([[0.0, 0.0, 4.0, 8.0]])
    made = [
        batch._replace(
            boxes=torch.cat([batch.boxes, small]),
            owner=torch.cat([batch.owner, torch.tensor([len(batch.image) - 1])]),
            target=torch.cat([batch.target, torch.tensor([False])]),
            crowd=torch.cat([batch.crowd, torch.tensor([False])]),
        )
        for batch in batches()
    ]
    with torch.no_grad():
        found = evaluate_patch(Bright(), made, seed=0, victims={}, sweeps=False)
    results = PatchResults.of(
        found, patch=np.zeros((3, 4, 4), np.float32), growth=[], sheet_cm=10.0, items_per_s=1.0
    )
    assert results.test["ap50_targets_clean"] == 1.0
    assert results.test["ap50_clean"] == pytest.approx(72 / 101)  # 5 of 7
    assert results.conditions["white"]["ap50_targets"] == 1.0


def test_strongest_control_has_the_lowest_precision() -> None:
    conditions = {"clean": {"ap50": 0.1}, "gray": {"ap50": 0.6}, "noise": {"ap50": 0.4}}
    assert strongest_control(conditions, ["gray", "noise"]) == "noise"


def test_sweeps_change_the_patch_or_the_picture() -> None:
    results = evaluated(Bright(start=0.0), sweeps=True)
    assert set(results.sweeps) == {*PLACED, *SPOILT}
    lost = [row["vanish_25"] for row in results.sweeps["size"].values()]
    assert lost[0] == 0.0  # too small to darken the middle
    assert lost[-1] == 1.0
    light = results.evaluation.sweeps["brightness"]
    np.testing.assert_allclose(light[0.6].clean.confidence, 0.54, rtol=1e-5)
    size = results.evaluation.sweeps["size"]
    assert all(pair.clean is results.evaluation.found["clean"] for pair in size.values())


def test_further_victims_have_their_own_numbers() -> None:
    blind = lambda images: Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))  # noqa: E731
    results = evaluated(Bright(), victims={"blind": blind, "same": Bright().detect})
    assert results.transfer["blind"]["clean"]["ap50"] == 0.0
    assert np.isnan(results.transfer["blind"]["patch"]["vanish_25"])
    assert results.transfer["same"]["patch"] == results.conditions["patch"]
    assert results.evaluation.n_views == 5 * (7 * 3 + 2)


def test_files_hold_the_patch_as_it_is() -> None:
    results = evaluated(Bright(start=0.25))
    files = results.files()
    torch.testing.assert_close(
        torch.load(io.BytesIO(files["patch.pt"]), weights_only=True), torch.full((3, 4, 4), 0.25)
    )
    assert files["patch.png"].startswith(b"\x89PNG")
    assert files["patch_sheet.pdf"].startswith(b"%PDF")


def test_numbers_can_be_written(tmp_path: Path) -> None:
    results = evaluated(Bright(start=0.1), sweeps=True)
    write_metrics(tmp_path / "metrics.json", results.sections())
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["intervals"]["vanish_25"] == [1.0, 1.0]
    assert set(written["sweeps"]["jpeg"]) == {"30", "50", "70", "95"}
    assert written["defended"].keys() == {"clean", "patch"}


def test_ranking_says_what_is_a_person() -> None:
    results = evaluated(Bright())
    scores, persons = results.ranking()
    assert persons is not None
    assert persons.all()
    assert len(scores) == 5
    assert isinstance(results.evaluation.truth, ImageBoxes)


# --- training -----------------------------------------------------------------------------------------------


def task_of(**options: object) -> PatchAttack:
    return PatchAttack(detector=Bright(), optimizer=partial(torch.optim.SGD, lr=2.0), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def people() -> CocoPerson:
    module = CocoPerson(n_images=12, size=S, batch_size=2, min_height=8, score_batch_size=4)
    module.setup()
    return module


def fitted(people: CocoPerson, folder: Path, epochs: int) -> tuple[PatchAttack, L.Trainer]:
    trainer = L.Trainer(
        max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=folder, accelerator="cpu",
    )  # fmt: skip
    task = task_of(sweeps=False)
    trainer.fit(task, datamodule=people)
    return task, trainer


def test_training_darkens_the_patch_and_keeps_how_it_grew(people: CocoPerson, tmp_path: Path) -> None:
    task, trainer = fitted(people, tmp_path, epochs=MAX_SNAPSHOTS + 3)
    epochs = [epoch for epoch, _, _ in task.growth]
    assert len(epochs) <= MAX_SNAPSHOTS
    assert epochs[0] == 1
    assert epochs[-1] == MAX_SNAPSHOTS + 3
    assert epochs == [*range(1, MAX_SNAPSHOTS + 3, 2), MAX_SNAPSHOTS + 3]
    assert float(task.growth[-1][2].float().mean()) < float(task.growth[0][2].float().mean())
    checkpoint: dict[str, object] = {}
    task.on_save_checkpoint(checkpoint)
    fresh = task_of()
    fresh.on_load_checkpoint(checkpoint)
    assert [row[:2] for row in fresh.growth] == [row[:2] for row in task.growth]
    results = task.assess(trainer, people)
    assert results.items_per_s > 0
    assert {name for name, _ in task.figures(results)} == {
        "patch_growth", "average_precision", "precision_recall", "detections",
    }  # fmt: skip


def test_further_victims_are_loaded_by_name(
    people: CocoPerson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(source: str, **options: object) -> Bright:
        asked.append((source, options))
        return Bright()

    monkeypatch.setattr(patch_attack, "load_victim", load)
    task, trainer = fitted(people, tmp_path, epochs=1)
    task.eval_victims, task.cache_dir = ("weights/other.pt",), tmp_path
    results = task.assess(trainer, people)
    assert asked == [("weights/other.pt", {"cache_dir": tmp_path})]
    assert set(results.transfer) == {"other"}
    assert "transfer" in {name for name, _ in task.figures(results)}


def test_victims_of_one_name_in_two_folders_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_attack, "load_victim", lambda source, **_: source)
    assert set(task_of(eval_victims=["a/best.pt", "b/other.pt"])._further_victims()) == {"best", "other"}
    assert set(task_of(eval_victims=["a/best.pt", "b/best.pt"])._further_victims()) == {
        "a/best.pt",
        "b/best.pt",
    }


def test_victim_that_is_not_there_is_refused_before_training(people: CocoPerson, tmp_path: Path) -> None:
    trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    task = task_of(eval_victims=["nowhere/victim.pt"])
    with pytest.raises(ConfigError, match=r"victim nowhere/victim\.pt: there is no such file"):
        trainer.fit(task, datamodule=people)
    assert trainer.global_step == 0


def test_sheet_that_does_not_fit_the_paper_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match="40"):
        task_of(sheet_cm=40.0)
