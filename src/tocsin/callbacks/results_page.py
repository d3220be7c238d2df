"""After a sweep: its tables, written into a page. A callback of Hydra, not of Lightning."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from tocsin.errors import TocsinError
from tocsin.plots.domains import domain_matrix
from tocsin.plots.save import save
from tocsin.results_table import read_rows, transfer, update_page

log = logging.getLogger(__name__)


def _draw_transfer(folder: Path) -> None:
    """A picture for each model that was tested on further domains, into the folder of the sweep."""
    for model, matrix in transfer(read_rows([folder])).items():
        figure = domain_matrix(
            np.array(matrix.values),
            matrix.sources,
            matrix.targets,
            title=f"Image AUROC of {model} from domain to domain",
        )
        save(figure, folder / f"transfer_{model}.png")


class ResultsPage(Callback):
    """Writes the results of a sweep when all of its jobs have ended, the failed ones too.

    Args:
        page: Markdown file; made if it does not exist.
        name: Block of the page that belongs to this sweep.
    """

    def __init__(self, *, page: str, name: str) -> None:
        self.page = Path(page)
        self.name = name

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read every metrics.json of the sweep."""
        try:
            update_page(self.page, self.name, [Path(config.hydra.sweep.dir)])
            _draw_transfer(Path(config.hydra.sweep.dir))
        except TocsinError as error:  # the runs are done and saved; only the table is missing
            log.warning("no results page: %s", error)
        else:
            log.info("results page: %s", self.page)
