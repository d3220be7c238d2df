"""Checks of the options of a detector: each passes, or raises one line that names the option."""


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError, with the possible values, unless `value` is one of them."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}")


def check_range(name: str, value: object, fits: bool, wanted: str) -> None:
    """Raise ValueError, with the wanted range, unless the value `fits` it."""
    if not fits:
        raise ValueError(f"{name}={value} is not {wanted}")
