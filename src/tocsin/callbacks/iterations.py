"""What happens in a training step by step, in files that others may read meanwhile, as the service does.

`progress.jsonl` gets one line for each optimizer step, `patch_now.png` the patch as it is. On a GPU a value that is
looked at makes the host wait, so values are kept where they are and written together, several times a second. A run
that goes on from a checkpoint goes on with its lines: those of steps that the checkpoint does not know are cut.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from tocsin.models.art_patch import ArtPatch
from tocsin.models.base import PatchModel
from tocsin.results import write_files
from tocsin.tasks.base import Task
from tocsin.tasks.patch_results import png

PROGRESS, PICTURE = "progress.jsonl", "patch_now.png"
_SPEED_OVER = 20  # steps that the speed is a mean of


class Iterations(L.Callback):
    """Writes the losses of every step, and ends the training after so many.

    Args:
        iterations: Steps to train for: optimizer steps, or passes over the images where the detector has a loop of
            its own (`ArtPatch`).
        write_s: Seconds between two writes.
        picture_s: Seconds between two pictures of the patch.
    """

    def __init__(self, *, iterations: int, write_s: float = 0.2, picture_s: float = 1.0) -> None:
        if iterations < 1:
            raise ValueError(f"callbacks.iterations.iterations={iterations} is not positive")
        self.iterations = iterations
        self.write_s = write_s
        self.picture_s = picture_s
        self._folder = Path()
        self._waiting: list[tuple[int, float, dict[str, Tensor]]] = []
        self._times: list[float] = []  # of the last steps
        self._images = 0.0  # of a step
        self._written = self._pictured = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        self._folder = Path(trainer.default_root_dir)
        cut(self._folder / PROGRESS, trainer.global_step)
        self._times = [time.time()]
        detector = pl_module.detector
        if isinstance(detector, ArtPatch):
            detector.on_iteration = lambda number, loss: self._of_art(detector, number, loss)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Task)
        if not isinstance(pl_module.detector, PatchModel) or isinstance(pl_module.detector, ArtPatch):
            return
        self._images = float(len(batch[0]))
        self._note(trainer.global_step, pl_module.terms, pl_module.detector.patch)
        if trainer.global_step >= self.iterations:
            trainer.should_stop = True  # after this step's validation

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before the checkpoint is written: it must know no step that has no line."""
        self._write()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._write()

    def _of_art(self, detector: ArtPatch, number: int, loss: float) -> None:
        self._images = float(detector.n_images)
        self._note(number, {"loss": torch.tensor(loss)}, detector.growing)

    def _note(self, iteration: int, terms: Mapping[str, Tensor], patch: Tensor) -> None:
        now = time.time()
        self._times = [*self._times[-_SPEED_OVER:], now]
        self._waiting.append((iteration, now, dict(terms)))
        if now - self._written >= self.write_s or iteration >= self.iterations:
            self._write()
        if now - self._pictured >= self.picture_s or iteration >= self.iterations:
            write_files(self._folder, {PICTURE: png(patch.cpu().numpy())})
            self._pictured = time.time()

    def _write(self) -> None:
        if not self._waiting:
            return
        names = list(self._waiting[0][2])
        values = torch.stack([torch.stack([terms[name] for name in names]) for _, _, terms in self._waiting])
        per_step = (self._times[-1] - self._times[0]) / (len(self._times) - 1)  # seconds
        lines = [
            {
                "iteration": iteration,
                "losses": {
                    name: value if math.isfinite(value) else None
                    for name, value in zip(names, row, strict=True)
                },
                "images_per_s": round(self._images / max(per_step, 1e-9), 3),
                "seconds_left": round(per_step * (self.iterations - iteration), 1),
                "time": round(when, 3),
            }
            for (iteration, when, _), row in zip(self._waiting, values.float().cpu().tolist(), strict=True)
        ]
        with (self._folder / PROGRESS).open("a") as file:
            file.write("".join(f"{json.dumps(line)}\n" for line in lines))
        self._waiting = []
        self._written = time.time()


def cut(path: Path, last: int) -> None:
    """Keep the lines of steps up to the last that counts; what a kill left unfinished goes, too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["iteration"] > last:
            break
        kept.append(line)
    write_files(path.parent, {path.name: "".join(kept).encode()})
