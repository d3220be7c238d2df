"""What the task of classifiers makes of their logits, and what it measures on the way."""

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as L
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn

from tocsin.batch import ClassBatch
from tocsin.callbacks.checkpoint import BestAndLast
from tocsin.callbacks.ema import Ema
from tocsin.data.defects import Defects
from tocsin.errors import ConfigError
from tocsin.metrics.thresholds import Fixed, MissRate, Quantile, Threshold
from tocsin.models.base import ImageClassifier
from tocsin.schedulers import OneCycle
from tocsin.tasks.class_results import ClassResults
from tocsin.tasks.classification import Classification

SIZE = 16


class ByCorner(ImageClassifier):
    """Class 1 where the upper left corner is bright: not the same for a flipped image. One weight can be learnt."""

    n_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(4.0))

    def loss(self, batch: ClassBatch) -> dict[str, Tensor]:
        assert batch.label is not None
        return {"loss": nn.functional.cross_entropy(self.logits(batch.image), batch.label)}

    def logits(self, images: Tensor) -> Tensor:
        bright = (images[:, :, : SIZE // 2, : SIZE // 2].mean(dim=(1, 2, 3)) - 0.5) * self.slope
        return torch.stack([-bright, bright], dim=1)


def draw(root: Path) -> None:
    """Faultless parts are dark, defects bright in one corner, with so much overlap that some mistakes are made."""
    rng = np.random.default_rng(0)
    for name, level in (("ok", 100), ("scratch", 150)):
        (root / name).mkdir(parents=True)
        for number in range(60):
            pixels = rng.integers(90, 110, (SIZE, SIZE)).astype(np.uint8)
            pixels[: SIZE // 2, : SIZE // 2] = np.clip(rng.normal(level, 25), 0, 255)
            assert cv2.imwrite(str(root / name / f"{number:03}.png"), pixels)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    draw(root / "data")
    return root


def defects(root: Path, **options: Any) -> Defects:
    settings: dict[str, Any] = {
        "height": SIZE,
        "width": SIZE,
        "batch_size": 8,
        "val_fraction": 0.3,
        "test_fraction": 0.3,
    }
    return Defects(root=root / "data", **(settings | options))


def task(threshold: Threshold | None = None, **options: Any) -> Classification:
    return Classification(
        detector=ByCorner(),
        optimizer=partial(torch.optim.SGD, lr=0.5),
        threshold=threshold or Fixed(value=0.5),
        **options,
    )


def trainer(folder: Path, **options: Any) -> L.Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": True,
        "default_root_dir": folder,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
    }
    return L.Trainer(**(settings | options))


def assessed(
    root: Path, threshold: Threshold | None = None, **options: Any
) -> tuple[Classification, ClassResults]:
    made, data = task(threshold, **options), defects(root)
    data.setup()
    return made, made.assess(trainer(root, enable_checkpointing=False), data)


@pytest.fixture(scope="module")
def results(root: Path) -> ClassResults:
    return assessed(root)[1]


# --- answers ------------------------------------------------------------------------------------------------


def test_answers_are_in_the_order_of_the_test_images(results: ClassResults, root: Path) -> None:
    read = np.array([cv2.imread(str(path))[0, 0, 0] for path in results.images.paths])
    order = np.argsort(results.probabilities[:, 1])
    assert (np.diff(read[order].astype(int)) >= 0).all()
    assert (results.labels == [name == "scratch" for name in results.images.classes]).all()


def test_metrics_and_baselines_are_there(results: ClassResults) -> None:
    assert {"accuracy", "macro_f1", "auroc", "balanced_accuracy", "ece", "miss_rate"} <= set(results.test)
    assert 0.7 < results.test["accuracy"] < 1
    assert results.baselines["majority"]["auroc"] == 0.5
    assert results.baselines["brightness"]["auroc"] > 0.7  # it can be seen from the pixels alone here
    low, high = results.intervals["accuracy"]
    assert low < results.test["accuracy"] < high


def test_calibration_reads_no_test_label(
    root: Path, results: ClassResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = defects(root)
    data.setup()
    honest = data.labels

    def swapped(images: Any) -> np.ndarray:
        return 1 - honest(images) if images is data.ready.test else honest(images)

    monkeypatch.setattr(data, "labels", swapped)
    other = task().assess(trainer(root, enable_checkpointing=False), data)
    assert other.calibration == results.calibration
    assert other.test["accuracy"] == pytest.approx(1 - results.test["accuracy"])


def test_the_gap_is_between_the_probe_and_validation(results: ClassResults, root: Path) -> None:
    data, model = defects(root), ByCorner()
    data.setup()
    right = []
    for loader in data.val_dataloader():
        batches = list(loader)
        found = torch.cat([model.logits(b.image).argmax(1) == b.label for b in batches])
        right.append(found.float().mean().item())
    assert results.val["train_val_gap"] == pytest.approx(right[1] - right[0])


def test_probabilities_are_those_of_the_temperature(results: ClassResults) -> None:
    ratio = np.log(results.uncalibrated[:, 1] / results.uncalibrated[:, 0])
    after = np.log(results.probabilities[:, 1] / results.probabilities[:, 0])
    np.testing.assert_allclose(after * results.calibration.temperature, ratio, rtol=1e-4, atol=1e-5)
    assert results.calibration.temperature != pytest.approx(1.0, abs=0.05)


def test_a_wanted_miss_rate_moves_the_alarm_but_not_the_classes(root: Path, results: ClassResults) -> None:
    _, careful = assessed(root, MissRate(max_miss_rate=0.1))
    assert careful.calibration.alarm is not None
    assert careful.calibration.alarm < 0.5
    assert careful.val["miss_rate"] <= 0.1
    assert careful.test["accuracy"] == results.test["accuracy"]


def test_methods_without_labels_are_fitted_on_faultless_images_alone(root: Path) -> None:
    _, found = assessed(root, Quantile(level=0.9))
    normal = found.val_labels == 0
    share = (found.val_probabilities[normal, 1] >= found.calibration.alarm).mean()
    assert share == pytest.approx(0.1, abs=0.06)


def test_an_answer_is_unsure_where_no_class_or_several_are_probable(results: ClassResults) -> None:
    sure = results.calibration.sure
    expected = (results.probabilities >= sure).sum(1) != 1
    np.testing.assert_array_equal(results.unsure, expected)
    assert 0 < results.unsure.mean() < 1
    wrong = results.probabilities.argmax(1) != results.labels
    assert (wrong & ~results.unsure).mean() <= 0.1  # of the 36 test images: coverage .99 on validation


@pytest.mark.parametrize(("tta", "views"), [("none", 1), ("flips", 4), ("d4", 8)])
def test_logits_are_averaged_over_flips_and_turns(tta: Any, views: int) -> None:
    made = task(tta=tta)
    image = torch.zeros(1, 3, SIZE, SIZE)
    image[:, :, : SIZE // 2, : SIZE // 2] = 1.0  # every flip and turn moves the corner to one of four places
    alone = made.detector.logits(image)
    moved = made.detector.logits(image.flip(-1))
    expected = alone if views == 1 else (alone + 3 * moved) / 4
    torch.testing.assert_close(made.logits(image), expected)


def test_turns_need_square_images() -> None:
    with pytest.raises(ConfigError, match=r"task\.tta=flips"):
        task(tta="d4").logits(torch.zeros(1, 3, SIZE, 2 * SIZE))


@pytest.mark.parametrize(("option", "value"), [("tta", "all"), ("coverage", 1.0)])
def test_options_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"task\.{option}"):
        task(**{option: value})


# --- training -----------------------------------------------------------------------------------------------


class Watch(L.Callback):
    """Notes the rate of every optimizer step and what validation logs."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.logged: list[dict[str, float]] = []
        self.slopes: list[float] = []  # as validation saw them

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_validation_batch_start(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        self.slopes.append(float(pl_module.detector.slope))


def fitted(
    root: Path, folder: Path, *, epochs: int, ckpt: Path | None = None, **options: Any
) -> tuple[Any, Watch]:
    made = task(scheduler=OneCycle)
    watch = Watch()
    runner = trainer(
        folder, max_epochs=4, callbacks=[Ema(decay=0.9), BestAndLast(monitor="val_macro_f1", mode="max"), watch],
        **options,
    )  # fmt: skip
    if epochs < 4:  # killed after so many epochs of four

        class Kill(L.Callback):
            def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
                if trainer.current_epoch == epochs:
                    raise KeyboardInterrupt

        runner.callbacks.append(Kill())  # type: ignore[attr-defined]
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            runner.fit(made, datamodule=defects(root), ckpt_path=ckpt, weights_only=True)
    else:
        runner.fit(made, datamodule=defects(root), ckpt_path=ckpt, weights_only=True)
    return made, watch


def test_live_metrics_are_those_of_whole_epochs(root: Path, tmp_path: Path) -> None:
    """Macro F1 of an epoch is not the mean over its batches."""
    made, data = task(), defects(root, score_batch_size=5)
    watch = Watch()
    trainer(tmp_path, max_epochs=1, callbacks=[watch], enable_checkpointing=False).fit(made, datamodule=data)
    (logged,) = watch.logged
    for prefix, loader in zip(("val", "train_probe"), data.val_dataloader(), strict=True):
        batches = list(loader)
        found = torch.cat([made.detector.logits(b.image).argmax(1) for b in batches])
        labels = torch.cat([b.label for b in batches])
        assert logged[f"{prefix}_macro_f1"] == pytest.approx(f1_score(labels, found, average="macro"))
        assert logged[f"{prefix}_accuracy"] == pytest.approx((found == labels).float().mean().item())
    assert logged["train_val_gap"] == pytest.approx(logged["train_probe_accuracy"] - logged["val_accuracy"])
    assert {"val_loss", "train_probe_loss"} <= set(logged)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_one_cycle_ends_on_the_last_step(root: Path, tmp_path: Path, accumulate: int) -> None:
    _, watch = fitted(root, tmp_path, epochs=4, accumulate_grad_batches=accumulate)
    assert len(watch.rates) == 4 * -(-6 // accumulate)  # six batches an epoch
    assert watch.rates[-1] == pytest.approx(0.5 / 25 / 1e4)
    assert watch.rates[-2] > 10 * watch.rates[-1]
    assert max(watch.rates) > 0.45


def test_a_resumed_run_goes_on_along_the_cycle_and_the_average(root: Path, tmp_path: Path) -> None:
    whole, seen = fitted(root, tmp_path / "whole", epochs=4)
    _, first = fitted(root, tmp_path / "killed", epochs=1)
    resumed, second = fitted(
        root, tmp_path / "killed", epochs=4, ckpt=tmp_path / "killed/checkpoints/last.ckpt"
    )
    assert first.rates + second.rates == pytest.approx(seen.rates)
    assert float(resumed.detector.slope) == float(whole.detector.slope)


def test_the_best_checkpoint_holds_the_average_that_was_measured(root: Path, tmp_path: Path) -> None:
    _, watch = fitted(root, tmp_path, epochs=4)
    checkpoint = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    measured = [row["val_macro_f1"] for row in watch.logged]
    best = max(epoch for epoch, value in enumerate(measured) if value == max(measured))  # of equals the later
    per_epoch = len(watch.slopes) // 4
    assert float(checkpoint["state_dict"]["detector.slope"]) == watch.slopes[best * per_epoch]
    assert float(checkpoint["current_model_state"]["detector.slope"]) != watch.slopes[best * per_epoch]


def test_the_average_follows_a_short_training() -> None:
    """With a fixed decay of .999 it would still be near the start."""
    ema = Ema()
    average = torch.tensor(0.0)
    for n in range(50):
        average = ema._averaged(average, torch.tensor(1.0), torch.tensor(n))
    assert average > 0.99
    steady = ema._averaged(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(10**6))
    assert steady == pytest.approx(0.001)


def test_counters_are_not_averaged() -> None:
    assert Ema()._averaged(torch.tensor(3), torch.tensor(8), torch.tensor(100)) == 8


def test_a_decay_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"callbacks\.ema\.decay=1\.0"):
        Ema(decay=1.0)


def test_a_threshold_that_validation_cannot_give_is_refused_before_training(
    root: Path, tmp_path: Path
) -> None:
    made, data = task(MissRate(max_miss_rate=0.001)), defects(root)  # of 18 defective validation images
    with pytest.raises(ConfigError, match="miss"):
        trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(made, datamodule=data)
    assert float(made.detector.slope) == 4.0


def test_a_new_stage_is_averaged_from_its_own_first_step(root: Path, tmp_path: Path) -> None:
    ema, made = Ema(decay=0.9), task()
    trainer(tmp_path, max_epochs=1, callbacks=[ema], enable_checkpointing=False).fit(
        made, datamodule=defects(root)
    )
    assert ema._average_model is not None
    with torch.no_grad():
        made.detector.slope.fill_(100.0)
    ema.on_stage_start()
    ema._average_model.update_parameters(made)
    assert float(ema._average_model.module.detector.slope) == 100.0
