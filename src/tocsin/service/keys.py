"""Keys of the service: random, shown once, and stored as hashes.

    python -m tocsin.service.keys me

A key has 256 random bits, so that its plain SHA-256 tells nothing of it, and no slow hash is needed.
"""

import argparse
import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import Mapping, Sequence

_PREFIX = "sha256-"  # so that no hash of digits alone is read as a number


def new_key() -> str:
    """A random key."""
    return secrets.token_urlsafe(32)


def hash_of(key: str) -> str:
    """What is stored of a key."""
    return _PREFIX + hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def is_hash(text: str) -> bool:
    """Whether a text is what `hash_of` gives."""
    return re.fullmatch(rf"{_PREFIX}[0-9a-f]{{64}}", text) is not None


def holder(key: str, hashes: Mapping[str, str]) -> str | None:
    """Name of who has a key, in a time that does not depend on it; None of one that no one has."""
    given = hash_of(key)
    held = [name for name, stored in hashes.items() if hmac.compare_digest(stored, given)]
    return held[0] if held else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tocsin.service.keys",
        description="Make a key of the service: it is shown once, and only its hash is configured.",
        epilog="Give the key as `Authorization: Bearer <key>`, as `X-API-Key: <key>`, or to a browser that "
        "asks for a password, with any user name.",
    )
    parser.add_argument("name", help="of who gets it: letters, digits and _")
    name = parser.parse_args(arguments).name
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", name):
        parser.error(f"{name!r} is no name: up to 64 letters, digits and _ are")
    key = new_key()
    sys.stdout.write(f"key, shown this once: {key}\nto configure the server: keys.{name}={hash_of(key)}\n")


if __name__ == "__main__":
    main()
