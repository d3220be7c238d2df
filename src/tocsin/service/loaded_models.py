"""Models that stay in memory: loaded once, used by all requests, replaced when their file changes."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from omegaconf import DictConfig, OmegaConf

from tocsin.checkpoints import read_checkpoint
from tocsin.class_prediction import load_trained_classifier
from tocsin.config import check
from tocsin.errors import TocsinError
from tocsin.image_prediction import load_trained_images, prediction_device
from tocsin.series_prediction import load_trained
from tocsin.service.batching import Batcher
from tocsin.service.image_scores import ClassModel, ImageModel
from tocsin.service.model_store import ModelCard, ModelStore
from tocsin.service.series_scores import SeriesModel
from tocsin.service.settings import Settings

log = logging.getLogger(__name__)

ScoringModel = SeriesModel | ImageModel | ClassModel


class NoScorerError(TocsinError):
    """The model is none that gives scores."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, and what brings requests together for it."""

    card: ModelCard
    model: ScoringModel
    batcher: Batcher[Any]


class LoadedModels:
    """Gives models by name; those that were used least recently make room for others.

    Args:
        settings: Of the server.
    """

    def __init__(self, settings: Settings) -> None:
        self.store = ModelStore(settings.models)
        self.streams = 0  # open ones, of all models
        self._settings = settings
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._batchers: WeakSet[Batcher[Any]] = (
            WeakSet()
        )  # those of models that made room may still be at work
        self._loading = asyncio.Lock()

    async def get(self, name: str) -> LoadedModel:
        """The model of a name, from memory or from the disk.

        Raises:
            UnknownModelError: There is none.
            NoScorerError: It gives no scores.
            TocsinError: Its checkpoint cannot be used.
        """
        if (loaded := self._current(name)) is not None:
            return loaded
        async with self._loading:  # who asks while it is loaded gets the same one
            if (loaded := self._current(name)) is not None:
                return loaded
            card = await asyncio.to_thread(self.store.find, name)
            model = await asyncio.to_thread(load_model, card, self._settings.devices)
            return self._keep(card, model)

    def _current(self, name: str) -> LoadedModel | None:
        """The loaded model, if its file is still the one that was loaded."""
        loaded = self._loaded.get(name)
        if loaded is None or not loaded.card.is_current():
            return None
        self._loaded.move_to_end(name)
        return loaded

    def _keep(self, card: ModelCard, model: ScoringModel) -> LoadedModel:
        limits = self._settings.limits
        batcher: Batcher[Any] = Batcher(
            model.step,
            units=model.units,
            requests=int(limits.batch),
            wait_s=limits.wait_ms / 1000,
            name=f"score {card.name}",
        )
        self._loaded[card.name] = loaded = LoadedModel(card, model, batcher)
        self._loaded.move_to_end(card.name)  # it may take the place of an older version of itself
        while len(self._loaded) > limits.models:
            name, _ = self._loaded.popitem(last=False)
            log.info("model %s makes room", name)
        self._batchers.add(batcher)
        log.info("model %s is loaded", card.name)
        return loaded

    async def close(self) -> None:
        """End all threads."""
        for batcher in list(self._batchers):
            await batcher.close()


def load_model(card: ModelCard, devices: str | list[int]) -> ScoringModel:
    """Load a model.

    Args:
        card: Of the model.
        devices: As `devices` of the settings; the first one is used.

    Raises:
        NoScorerError: It gives no scores.
        TocsinError: Its checkpoint cannot be used.
    """
    if card.kind == "detection":
        raise NoScorerError(
            f"model {card.name} is a patch and gives no scores; see /v1/patches for what it does to a detector"
        )
    checkpoint = read_checkpoint(card.checkpoint)
    cfg = _configuration(card, checkpoint, devices)
    check(cfg)  # only allowed targets become objects
    if card.kind == "image":
        return ImageModel(load_trained_images(cfg, checkpoint))
    if card.kind == "classification":
        return ClassModel(load_trained_classifier(cfg, checkpoint))
    if cfg.data.get("layout") == "traces":
        raise NoScorerError(
            f"model {card.name} reads files with one trace per row; score them with predict.py"
        )
    trained = load_trained(cfg, checkpoint)
    trained.task.to(prediction_device(cfg))
    return SeriesModel(trained)


def _configuration(card: ModelCard, checkpoint: dict[str, Any], devices: str | list[int]) -> DictConfig:
    """The configuration of the run, on a device of this server."""
    cfg: DictConfig = OmegaConf.create(checkpoint["config"])
    cfg.ckpt_path = str(card.checkpoint)
    cfg.trainer.accelerator = "cpu" if devices == "cpu" else "auto"
    cfg.trainer.devices = [devices[0]] if isinstance(devices, list) else "auto"
    return cfg


@asynccontextmanager
async def scorers(settings: Settings) -> AsyncIterator[LoadedModels]:
    """The models of a server, for as long as it runs; routes find them as `app.state.models`."""
    models = LoadedModels(settings)
    try:
        yield models
    finally:
        await models.close()
