"""What `conf/serve.yaml` sets, as plain data."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tocsin.config import nearest
from tocsin.errors import ConfigError
from tocsin.service.keys import is_hash


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for at most; see `conf/serve.yaml`."""

    body_mb: float = 16
    upload_mb: float = 512
    unpacked_mb: float = 2048
    files: int = 20_000
    labels_mb: float = 128
    pixels: int = 50_000_000
    rows: int = 1_000_000
    queued: int = 100
    streams: int = 64
    images: int = 64
    models: int = 8
    batch: int = 64
    wait_ms: float = 5
    idle_s: float = 300


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of a server.

    Attributes:
        host: Address to listen at.
        port: 0 takes a free one.
        hosts: Further names by which browsers reach the server.
        folder: Uploads (`datasets/`), jobs (`jobs/<id>/`) and logs.
        database: URL.
        models: Folder below which checkpoints are loaded.
        keys: Hash of the key of each name.
        devices: Of the workers.
        limits: Of requests.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()
    folder: Path = Path("service")
    database: str = "sqlite:///service/service.db"
    models: Path = Path("outputs")
    keys: dict[str, str] = field(default_factory=dict)
    devices: str | list[int] = "auto"
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if not self.keys and not self.local:
            raise ConfigError(
                f"host={self.host} can be reached from other machines, and there are no keys: make one with "
                "python -m tocsin.service.keys <name>, and set keys.<name>=<hash>"
            )
        for name, stored in self.keys.items():
            if not is_hash(stored):
                raise ConfigError(
                    f"keys.{name} is no hash of a key; python -m tocsin.service.keys {name} makes a key and the line "
                    "to configure"
                )
        for name in Limits.__dataclass_fields__:
            if getattr(self.limits, name) <= 0:
                raise ConfigError(f"limits.{name}={getattr(self.limits, name)} is not positive")

    @property
    def local(self) -> bool:
        """Whether the address cannot be reached from other machines."""
        return _of_this_machine(self.host)


def settings_of(plain: Mapping[str, Any]) -> Settings:
    """Settings of a composed configuration.

    Raises:
        ConfigError: A limit is unknown, or a setting is none that can be used.
    """
    limits = dict(plain["limits"])
    for name in sorted(set(limits) - set(Limits.__dataclass_fields__)):
        raise ConfigError(f"there is no key limits.{name}; {nearest(name, Limits.__dataclass_fields__)}")
    paths = {name: Path(plain[name]).expanduser() for name in ("folder", "models")}
    return Settings(
        **{
            **plain,
            **paths,
            "hosts": tuple(plain["hosts"]),
            "keys": dict(plain["keys"]),
            "limits": Limits(**limits),
        }
    )


def _of_this_machine(host: str) -> bool:
    """Whether an address cannot be reached from elsewhere; of a name that is no number only localhost is known."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
