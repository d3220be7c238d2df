"""Keep what a network reads within the range it has learned, whatever comes in.

A network that reads a value far outside its training range follows it: it predicts other channels wrongly, or copies
the excursion into its reconstruction. With limited inputs an excursion stays as large an error as it is.
"""

from torch import Tensor

from tocsin.models.checks import check_range


def check_limit(limit: float | None) -> None:
    """Raise ValueError unless the limit is None or above 0."""
    check_range("input_limit", limit or 0.0, limit is None or limit > 0.0, "above 0, or null")


def limited(x: Tensor, limit: float | None) -> Tensor:
    """Values of x (...) within ± `limit`, nearly as they are near 0; None leaves them alone."""
    return x if limit is None else limit * (x / limit).tanh()
