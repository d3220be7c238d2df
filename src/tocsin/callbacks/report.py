"""Base of the callbacks that turn results into pictures."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from tocsin.results import Results
from tocsin.tasks.base import Task


class Report(L.Callback):
    """Called once, when the results of a run are known."""

    @abstractmethod
    def report(
        self, *, run_dir: Path, results: Results, task: Task, trainer: L.Trainer, config: Mapping[str, Any]
    ) -> None:
        """Draw and log.

        Args:
            run_dir: Folder of the run.
            results: What was measured.
            task: With the weights that were measured.
            trainer: Its loggers get the pictures too.
            config: The run's configuration as plain data.
        """
