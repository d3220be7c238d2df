"""Errors that are the user's to mend: shown as one line that names what is wrong and the fix."""


class TocsinError(Exception):
    """Shown to the user as one line, without a stack trace."""


class DataError(TocsinError, ValueError):
    """A file or an array does not hold what it should."""


class ConfigError(TocsinError, ValueError):
    """An option, or a combination of options, cannot be used."""


class Pruned(TocsinError):
    """A job of a sweep that was ended early, because other jobs were clearly better.

    Attributes:
        value: The best monitored value until then; NaN if it cannot be compared with that of a finished job, because
            it is of another stage of the training.
    """

    def __init__(self, message: str, *, value: float) -> None:
        super().__init__(message)
        self.value = value
