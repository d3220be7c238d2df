"""Finds the trained models that may score: finished runs below one folder, and nothing outside it.

A model is a folder that holds `metrics.json` and `checkpoints/best.ckpt`. Requests name a model; a name is looked up
among those that were found and is never made a path.
"""

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tocsin.checkpoints import read_checkpoint
from tocsin.config import locate, nearest
from tocsin.errors import TocsinError

log = logging.getLogger(__name__)

CHECKPOINT = Path("checkpoints") / "best.ckpt"
METRICS = "metrics.json"

Signature = tuple[int, ...]  # changes when a file does


class UnknownModelError(TocsinError):
    """No model has this name."""


@dataclass(frozen=True)
class ModelCard:
    """What is known of a trained model without its weights.

    Attributes:
        name: Its path below the folder, with `--` between the parts.
        kind: `series`, `image`, `classification` or `detection`.
        model: Name of the option.
        data: Name of the option.
        metrics: Of the test split.
        threshold: Method, value and split.
        reads: What new data must have: channels and window, or height and width.
        checkpoint: Where the weights lie.
        signature: Of that file.
    """

    name: str
    kind: str
    model: str
    data: str
    metrics: Mapping[str, float | None]
    threshold: Mapping[str, Any]
    reads: Mapping[str, Any]
    checkpoint: Path
    signature: Signature

    def is_current(self) -> bool:
        """Whether the file is still the one that was read."""
        return signature_of(self.checkpoint) == self.signature

    def public(self) -> dict[str, Any]:
        """What the service tells of it; its place on the disk is not part of that."""
        return {
            "name": self.name,
            "kind": self.kind,
            "model": self.model,
            "data": self.data,
            "metrics": dict(self.metrics),
            "threshold": dict(self.threshold),
            **self.reads,
        }


class ModelStore:
    """Knows the models below a folder.

    Args:
        folder: Need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._cards: dict[str, ModelCard] = {}
        self._seen: dict[Path, tuple[Signature, ModelCard | None]] = {}
        self._lock = threading.Lock()

    def cards(self) -> list[ModelCard]:
        """All models, by name. Only new and changed ones are read."""
        with self._lock:
            runs = list(finished_runs(self.folder))
            self._seen = {run: self._read(run) for run in runs}
            found = [card for _, card in self._seen.values() if card is not None]
            self._cards = {card.name: card for card in sorted(found, key=lambda card: card.name)}
            return list(self._cards.values())

    def find(self, name: str) -> ModelCard:
        """The model of a name, as its file is now.

        Raises:
            UnknownModelError: There is none.
        """
        card = self._cards.get(name)
        if card is not None and card.is_current():
            return card
        known = {card.name: card for card in self.cards()}
        if name not in known:
            raise UnknownModelError(f"there is no model {name[:200]!r}; {nearest(name[:200], known)}")
        return known[name]

    def _read(self, run: Path) -> tuple[Signature, ModelCard | None]:
        signature = signature_of(run / CHECKPOINT) + signature_of(run / METRICS)
        if run in self._seen and self._seen[run][0] == signature:
            return self._seen[run]
        try:
            return signature, read_card(run, self.folder)
        except TocsinError as error:
            log.warning("no model: %s", error)
            return signature, None


def finished_runs(folder: Path) -> Iterator[Path]:
    """Folders of finished runs below a folder, itself included; links that lead out of it are not followed."""
    for current, below, _ in os.walk(folder):  # does not follow links to folders
        run = Path(current)
        files = (run / METRICS, run / CHECKPOINT)
        if all(file.is_file() for file in files):
            below.clear()  # no run lies in another one
            if all(file.resolve().is_relative_to(folder) for file in files):
                yield run


def signature_of(path: Path) -> Signature:
    """Time, size and number of a file; empty if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_card(run: Path, folder: Path) -> ModelCard:
    """The card of a finished run.

    Args:
        run: Its folder.
        folder: Of all models.

    Raises:
        TocsinError: Its files are none of a finished run.
    """
    signature = signature_of(run / CHECKPOINT)
    checkpoint = read_checkpoint(run / CHECKPOINT, mmap=True)
    config, data, choices = (checkpoint[key] for key in ("config", "data", "choices"))
    try:
        # What is no number in JSON (NaN) would be none in an answer either.
        sections = json.loads((run / METRICS).read_bytes(), parse_constant=lambda _: None)
        kind = locate(config["task"]["_target_"]).accepts  # type: ignore[attr-defined]
        return ModelCard(
            name=name_of(run, folder),
            kind=kind,
            model=choices.get("model") or config["model"]["_target_"].rpartition(".")[2],
            data=choices.get("data") or config["data"]["_target_"].rpartition(".")[2],
            metrics=dict(sections["test"]),
            threshold=sections.get("threshold", {}),
            reads=_reads(kind, data),
            checkpoint=run / CHECKPOINT,
            signature=signature,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TocsinError(f"{run} is not the folder of a finished run: {error}") from error


def name_of(run: Path, folder: Path) -> str:
    """A name that can stand in a URL, the same each time."""
    parts = run.relative_to(folder).parts or (folder.name,)
    path = "--".join(parts)
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", path)
    if plain != path or any("--" in part for part in parts):  # two paths must not share a name
        plain += f"-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:8]}"
    return plain


def _reads(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "series":
        return {"channels": list(data["channel_names"]), "window": int(data["window"])}
    if kind == "detection":
        return {"image_size": int(data["size"])}
    size = {"height": int(data["reader"]["height"]), "width": int(data["reader"]["width"])}
    return size if kind == "image" else {**size, "classes": list(data["classes"])}
