"""Imports of ultralytics and of ART without what they do to the process and to the home folder.

On import, ultralytics (8.4.190) asks a name server whether there is a network, writes settings to the home folder,
sets variables of the environment, takes the threads of OpenCV away, and replaces `torch.save` and `PIL.Image.open`;
its `PIL.Image.open` may install packages. ART (1.20.1) makes a folder in the home folder. Here both are imported
with a temporary folder for a home, and all of that is undone. Files of weights are read without running code that
stands in them, and nothing is installed.
"""

import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from tocsin.errors import ConfigError

_ULTRALYTICS = ("ultralytics.nn.tasks", "ultralytics.utils.loss", "ultralytics.utils.downloads")
_ART = ("art.estimators.object_detection", "art.attacks.evasion")
_HOME = tempfile.TemporaryDirectory(prefix="tocsin-", ignore_cleanup_errors=True)  # until the process ends


def require_ultralytics() -> None:
    """Import ultralytics once.

    Raises:
        ConfigError: It is not installed.
    """
    _require("ultralytics", _ULTRALYTICS)
    logging.getLogger("ultralytics").setLevel(logging.ERROR)  # it tells of every layer


def require_art() -> None:
    """Import the adversarial robustness toolbox once.

    Raises:
        ConfigError: It is not installed.
    """
    logging.getLogger("art").setLevel(logging.WARNING)  # it tells of each step, without the loss
    _require("art", _ART)


def _require(package: str, modules: tuple[str, ...]) -> None:
    if all(name in sys.modules for name in modules):
        return
    try:
        with _contained():
            for name in modules:
                importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != package:
            raise
        raise ConfigError(
            f"attacks need the package {package}, which is not installed: pip install tocsin[attack]"
        ) from error


@contextmanager
def _contained() -> Iterator[None]:
    """Undo at the end what an import changes in this process."""
    import cv2
    import PIL.Image

    environment = dict(os.environ)
    kept = (torch.save, PIL.Image.open, cv2.getNumThreads())
    os.environ.update(
        HOME=_HOME.name,
        YOLO_CONFIG_DIR=_HOME.name,
        YOLO_OFFLINE="true",
        YOLO_VERBOSE="false",
        YOLO_AUTOINSTALL="false",
        ULTRALYTICS_SAFE_LOAD="true",
    )
    try:
        with np.printoptions():
            yield
    finally:
        torch.save, PIL.Image.open = kept[:2]
        cv2.setNumThreads(kept[2])
        torch.set_printoptions(profile="default")  # type: ignore[no-untyped-call]
        os.environ.clear()
        os.environ.update(environment)
