"""What the pipeline asks of the datamodule of any kind of data."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import lightning.pytorch as L
import pandas as pd
from torch.utils.data import DataLoader, Dataset, Sampler

from tocsin.errors import DataError


class DataModule(L.LightningDataModule):
    """Base of all datamodules.

    Subclasses are dataclasses of their options, so that those further down inherit them. Their loaders give whole
    batches; where several processes train, `sharing` gives each its part.

    Attributes:
        kind: The kind of data: `series`, `image`, `classification` or `detection`.
        batch_size: Items in a training batch, over all processes.
        num_workers: Loader processes.
    """

    kind: ClassVar[str]
    batch_size: int
    num_workers: int

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Read or draw the data and cut them into splits; a second call does nothing."""

    @abstractmethod
    def dims(self) -> dict[str, Any]:
        """Arguments of a detector that only the data can tell, once set up."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """The `data` section of metrics.json."""

    def manifest(self) -> pd.DataFrame | None:
        """Which item is in which split; None where the splits are stretches of time."""
        return None

    @abstractmethod
    def scoring_state(self) -> dict[str, Any]:
        """What new data need to be treated like the training data: plain lists and numbers."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Treat the data as those of a trained run were treated; call before `setup`."""

    @abstractmethod
    def single_pass(self) -> None:
        """Let an epoch show each training item once, for a detector that learns nothing by repetition."""

    def check_positive(self, *options: str) -> None:
        """Raise DataError, naming it, if one of these options is not positive."""
        for name in options:
            if getattr(self, name) < 1:
                raise DataError(f"data.{name}={getattr(self, name)} is not a positive number")

    def _loader(
        self, dataset: Dataset[Any], batch_size: int, sampler: Sampler[Any] | None = None
    ) -> DataLoader[Any]:
        """Loader of a dataset whose `__getitems__` makes whole batches."""
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=as_is,
        )


def as_is(batch: Any) -> Any:
    """What `__getitems__` made is the batch."""
    return batch
