"""What runs are compared by: the options that shape a result, with plain values."""

from collections.abc import Mapping
from typing import Any

COMPARED = ("model", "data", "optimizer", "scheduler", "threshold", "task", "trainer")


def hyper_parameters(config: Mapping[str, Any]) -> dict[str, int | float | bool | str]:
    """The seed and the options of these groups; a class stands under the name of its group.

    Args:
        config: Flat, with dotted keys, interpolations left as they are: what only repeats another key is left out.
    """
    chosen: dict[str, int | float | bool | str] = {}
    for key, value in config.items():
        if key != "seed" and key.split(".")[0] not in COMPARED:
            continue
        if key.endswith("._target_"):
            chosen[key.removesuffix("._target_")] = str(value).rsplit(".", 1)[-1]
        elif isinstance(value, int | float | bool) or (isinstance(value, str) and "${" not in value):
            chosen[key] = value
    return chosen
