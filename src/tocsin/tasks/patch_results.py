"""What an attack with a patch leaves behind: numbers with their controls, detections, and the patch itself."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from tocsin.metrics.bootstrap import RESAMPLES
from tocsin.metrics.box_matching import ImageBoxes, match
from tocsin.metrics.detection import (
    ap50,
    ap50_95,
    ap50_estimate,
    clean_as_truth,
    excess_drop,
)
from tocsin.metrics.estimates import Estimate
from tocsin.metrics.vanish import IOU, TAUS, vanish_metrics
from tocsin.plots.patch_sheet import patch_sheet
from tocsin.results import Results
from tocsin.tasks.patch_evaluation import CLEAN, PATCH, Evaluation, Pair


@dataclass(frozen=True, kw_only=True)
class PatchResults(Results):
    """Results of an attack with a patch.

    Attributes:
        evaluation: What the victims found.
        patch: (3, P, P) float32 in [0, 1].
        growth: Epochs in order, with their validation loss and the (3, P, P) uint8 patch after them.
        sheet_cm: Side of the printed patch in centimetres.
        conditions: Metrics of the attacked victim by condition: `clean`, each control, `patch`.
        transfer: The same of further victims, by their names.
        defended: AP50 after the defence, `clean` and `patch`.
        sweeps: AP50 without and with the patch, and the vanish rate, by condition and strength.
        intervals: 95 % interval over images of test metrics, by name.
    """

    evaluation: Evaluation
    patch: np.ndarray
    growth: Sequence[tuple[int, float, np.ndarray]]
    sheet_cm: float
    conditions: Mapping[str, Mapping[str, float]]
    transfer: Mapping[str, Mapping[str, Mapping[str, float]]]
    defended: Mapping[str, float]
    sweeps: Mapping[str, Mapping[float, Mapping[str, float]]]
    intervals: Mapping[str, Sequence[float]]
    headline = ("ap50_clean", "ap50_control", "ap50_patch", "vanish_25", "vanish_50", "unseen_25")

    @classmethod
    def of(
        cls,
        evaluation: Evaluation,
        *,
        patch: np.ndarray,
        growth: Sequence[tuple[int, float, np.ndarray]],
        sheet_cm: float,
        items_per_s: float,
    ) -> "PatchResults":
        """Measure what was found.

        Args:
            evaluation: Detections under all conditions.
            patch: (3, P, P) float32 in [0, 1].
            growth: Epochs with their validation loss and the (3, P, P) uint8 patch after them.
            sheet_cm: Side of the printed patch in centimetres.
            items_per_s: Images per second through the victims.
        """
        conditions = _conditions(evaluation, evaluation.found)
        estimates = _estimates(evaluation)
        test = {**conditions[PATCH], **{name: estimate.value for name, estimate in estimates.items()}}
        intervals = {name: (estimate.low, estimate.high) for name, estimate in estimates.items()}
        return cls(
            evaluation=evaluation,
            patch=patch,
            growth=growth,
            sheet_cm=sheet_cm,
            conditions=conditions,
            transfer={name: _conditions(evaluation, found) for name, found in evaluation.transfer.items()},
            defended={
                name: ap50(found, evaluation.truth) for name, found in evaluation.defended._asdict().items()
            },
            sweeps={
                name: {value: _effect(evaluation, pair) for value, pair in strengths.items()}
                for name, strengths in evaluation.sweeps.items()
            },
            intervals=intervals,
            test=test,
            baselines={name: conditions[name] for name in (CLEAN, *evaluation.controls)},
            items_per_s=items_per_s,
        )

    @property
    def best_control(self) -> str:
        """Name of the control under which the victim finds least: what the patch is compared with."""
        return strongest_control(self.conditions, list(self.evaluation.controls))

    def sections(self) -> dict[str, Any]:
        return {
            "threshold": {"method": "fixed", "value": list(TAUS), "split": None},
            "val": dict(self.val),
            "test": dict(self.test),
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "oracle": {},
            "baselines": {name: dict(row) for name, row in self.baselines.items()},
            "best_control": self.best_control,
            "transfer": {name: {c: dict(r) for c, r in rows.items()} for name, rows in self.transfer.items()},
            "defended": dict(self.defended),
            "sweeps": {
                name: {f"{value:g}": dict(row) for value, row in rows.items()}
                for name, rows in self.sweeps.items()
            },
        }

    def arrays(self) -> dict[str, np.ndarray]:
        truth = self.evaluation.truth
        found = {
            f"{name}_{part}": values
            for name, boxes in self.evaluation.found.items()
            for part, values in (("boxes", boxes.boxes), ("owner", boxes.owner), ("scores", boxes.confidence))
        }
        return {
            "patch": self.patch,
            "truth_boxes": truth.boxes,
            "truth_owner": truth.owner,
            "truth_crowd": truth.is_crowd,
            "target": self.evaluation.target,
            **found,
        }

    def files(self) -> dict[str, bytes]:
        """The patch as a picture, as a tensor (3, P, P) float32 in [0, 1], and on a sheet for the printer."""
        tensor, sheet = io.BytesIO(), io.BytesIO()
        torch.save(torch.from_numpy(self.patch), tensor)
        patch_sheet(self.patch.transpose(1, 2, 0), size_cm=self.sheet_cm).savefig(sheet, format="pdf")
        return {
            "patch.png": png(self.patch),
            "patch.pt": tensor.getvalue(),
            "patch_sheet.pdf": sheet.getvalue(),
        }

    def ranking(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Confidence of what is found under the patch, and whether it is a person."""
        found = self.evaluation.found[PATCH]
        matching = match(found, self.evaluation.truth, iou_thresholds=np.array([IOU]))
        return found.confidence[matching.place], matching.truth[0] >= 0


def strongest_control(conditions: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> str:
    """The control with the lowest AP50."""
    return min(names, key=lambda name: conditions[name]["ap50"])


def png(patch: np.ndarray) -> bytes:
    """A (3, P, P) patch in [0, 1] as the bytes of a PNG file."""
    pixels = np.round(patch.transpose(1, 2, 0)[..., ::-1] * 255).astype(
        np.uint8
    )  # (P, P, 3), as OpenCV wants it
    _, written = cv2.imencode(".png", pixels)
    return bytes(written)


def _conditions(evaluation: Evaluation, found: Mapping[str, ImageBoxes]) -> dict[str, dict[str, float]]:
    """Metrics of one victim by condition."""
    sure = clean_as_truth(found[CLEAN])
    rows = {}
    for name, boxes in found.items():
        rows[name] = {
            "ap50": ap50(boxes, evaluation.truth),
            "ap50_95": ap50_95(boxes, evaluation.truth),
            "ap50_targets": ap50(boxes, evaluation.worn),
            "det_ap50": ap50(boxes, sure),
            **{key: value.value for key, value in _vanished(evaluation, found[CLEAN], boxes, n=0).items()},
        }
    return rows


def _vanished(
    evaluation: Evaluation, clean: ImageBoxes, patched: ImageBoxes, n: int = RESAMPLES
) -> dict[str, Estimate]:
    return vanish_metrics(
        clean, patched, evaluation.truth, evaluation.target, n_images=evaluation.n_images, n=n
    )


def _estimates(evaluation: Evaluation) -> dict[str, Estimate]:
    """Test metrics of the attacked victim with their intervals over images.

    Average precision is that of all persons, and of those alone that wear a patch (`targets`).
    """
    found, controls = evaluation.found, list(evaluation.controls)
    vanished = {name: _vanished(evaluation, found[CLEAN], found[name]) for name in (*controls, PATCH)}
    strongest = {
        name: max((vanished[control][name] for control in controls), key=lambda rate: rate.value)
        for name in ("vanish_25", "vanish_50", "unseen_25", "unseen_50")
    }
    return {
        **_precisions(evaluation, evaluation.truth, "ap50"),
        **_precisions(evaluation, evaluation.worn, "ap50_targets"),
        **vanished[PATCH],
        **{f"{name}_control": rate for name, rate in strongest.items()},
    }


def _precisions(evaluation: Evaluation, truth: ImageBoxes, name: str) -> dict[str, Estimate]:
    """AP50 without a patch, with the strongest control and with the patch, and what the patch adds."""
    found, n_images = evaluation.found, evaluation.n_images
    measured = {
        condition: ap50_estimate(boxes, truth, n_images=n_images) for condition, boxes in found.items()
    }
    control = min(evaluation.controls, key=lambda condition: measured[condition].value)
    controls = [found[condition] for condition in evaluation.controls]
    return {
        f"{name}_clean": measured[CLEAN],
        f"{name}_control": measured[control],
        f"{name}_patch": measured[PATCH],
        f"{name}_beyond_control": excess_drop(controls, found[PATCH], truth, n_images=n_images),
    }


def _effect(evaluation: Evaluation, pair: Pair) -> dict[str, float]:
    """AP50 without and with the patch, and how many are lost at the lower confidence."""
    vanished = _vanished(evaluation, pair.clean, pair.patch, n=0)
    return {
        "ap50_clean": ap50(pair.clean, evaluation.truth),
        "ap50_patch": ap50(pair.patch, evaluation.truth),
        "vanish_25": vanished["vanish_25"].value,
    }
