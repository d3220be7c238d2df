"""What a patch job may be asked for, and the overrides of `train.py` that it amounts to.

Names reach Hydra as quoted text of letters, digits and a few signs, never one that Hydra or OmegaConf would read as
more than a name.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

STANDIN = "standin"  # as victims call it; to import them takes seconds
MAX_ITERATIONS, MAX_IMAGE, MAX_PATCH, MAX_IMAGES = 100_000, 1280, 512, 100_000
DATABASE = (
    "TOCSIN_SERVICE_DATABASE"  # variable of the environment: a URL may hold a password, which no file should
)
_OBJECTIVES = {
    "total": "vanish_logsumexp",
    "cls": "bce_background",
    "box": "raise_box",
    "dfl": "raise_dfl",
}
_EPOCH = {"cpu": 5, "gpu": 50}  # steps: a few seconds, so that a kill loses no more
_VAL_BATCHES = 2  # of 16 images: epochs this short would else do little but validate, where there are many

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_ .+-]*$")]
File = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_ ./+-]*$")]


class PatchRequest(BaseModel):
    """A patch to make.

    With backend `native`, `loss=total` (or none) makes the victim less sure of every box of a target, `cls` leads it
    towards an empty image, `box` and `dfl` make its boxes worse. With backend `art` the goal is an empty image, in
    which there are no boxes to make worse: `total` and `cls` are the same, `box` and `dfl` are refused.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    dataset: Name
    target_class: Name = "person"
    victim: File = Field(STANDIN, description="`standin`, or a .pt file below the models folder")
    backend: Literal["native", "art"] = "native"
    loss: Literal["total", "cls", "box", "dfl"] | None = None
    iterations: int = Field(
        200, ge=1, le=MAX_ITERATIONS, description="optimizer steps; with art, passes over the images"
    )
    learning_rate: float | None = Field(None, gt=0, le=1, description="none: 0.1, or 0.03 with art")
    patch_size: int = Field(64, ge=8, le=MAX_PATCH, description="pixels of a side of the patch")
    max_images: int | None = Field(None, ge=3, le=MAX_IMAGES, description="draws so many of the data set")
    size: int = Field(
        320, ge=64, le=MAX_IMAGE, multiple_of=32, description="pixels of a side of the square images"
    )
    seed: int = Field(42, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        if self.backend == "art" and self.loss in ("box", "dfl"):
            raise ValueError(
                f"loss={self.loss} does nothing with backend=art, whose goal is an image without boxes; "
                "use backend=native, or loss=total or cls"
            )
        return self


def victim_source(name: str, models: Path) -> str | None:
    """What a model takes as its victim: `standin`, or the path of a .pt file below a folder.

    Returns:
        None where there is no such file, or it lies elsewhere.
    """
    if name == STANDIN:
        return name
    try:
        path, root = (models / name).resolve(), models.resolve()
        inside = path.is_relative_to(root) and path.suffix == ".pt" and path.is_file()
    except OSError:  # a name that no file can have
        return None
    return str(path) if inside else None


def overrides(request: PatchRequest, *, victim: str, kind: str) -> list[str]:
    """Overrides of `train.py` that set a job apart, wherever it runs.

    Args:
        request: What is asked for.
        victim: From `victim_source`.
        kind: `cpu` or `gpu`, where it starts.
    """
    given = [
        "data=coco_person",
        f"data.root=${{oc.env:{DATABASE}}}",
        f"++data.dataset={_quoted(request.dataset)}",
        f"data.category={_quoted(request.target_class)}",
        f"data.size={request.size}",
        f"data.max_images={'null' if request.max_images is None else request.max_images}",
        f"seed={request.seed}",
        "logger=none",
        "callbacks.early_stopping=null",  # so many steps were asked for
        "+callbacks.iterations._target_=tocsin.callbacks.iterations.Iterations",
        f"+callbacks.iterations.iterations={request.iterations}",
    ]
    model = {
        "victim": _quoted(victim),
        "target_class": _quoted(request.target_class),
        "patch_size": request.patch_size,
    }
    if request.backend == "native":
        given += ["model=yolo_patch", *_native(request, kind)]
        model["objective"] = _OBJECTIVES[request.loss or "total"]
    else:
        given += ["model=art_patch"]
        model["iterations"] = request.iterations
        model["learning_rate"] = request.learning_rate or 0.03
        model["losses"] = f"[loss_{request.loss or 'total'}]"
    return [*given, *(f"++model.{name}={value}" for name, value in model.items())]


def _native(request: PatchRequest, kind: str) -> list[str]:
    epochs, steps = epochs_of(request.iterations, _EPOCH[kind])
    return [
        f"optimizer.lr={request.learning_rate or 0.1}",
        f"++data.steps_per_epoch={steps}",
        f"trainer.max_epochs={epochs}",
        f"++trainer.limit_val_batches={_VAL_BATCHES}",
        f"++scheduler.warmup_epochs={min(2, epochs // 5)}",
    ]


def epochs_of(iterations: int, wanted: int) -> tuple[int, int]:
    """Epochs of about so many steps, and the steps of one; the last epoch may be a little shorter.

    Args:
        iterations: Steps in all.
        wanted: Most steps of an epoch.
    """
    steps = ceil(iterations / ceil(iterations / wanted))
    return ceil(iterations / steps), steps


def run_overrides(folder: Path, *, gpu: bool, cache_dir: str | None) -> Sequence[str]:
    """Overrides of this one start of a job: where it writes, and on what it runs."""
    resumes = (folder / "checkpoints" / "last.ckpt").is_file()
    return [
        f"hydra.run.dir={_quoted(str(folder))}",
        f"ckpt_path={'last' if resumes else 'null'}",
        *(["trainer.accelerator=gpu", "trainer.devices=1"] if gpu else ["trainer=cpu"]),
        *([] if cache_dir is None else [f"cache_dir={_quoted(cache_dir)}"]),
    ]


def _quoted(text: str) -> str:
    """A text as Hydra reads it back, whatever it holds."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"'{escaped}'"
