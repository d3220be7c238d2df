"""Settings: what cannot be served is refused before anything listens; what the key command prints is understood."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tocsin.cli import settable
from tocsin.composing import register
from tocsin.config import conf_dir
from tocsin.errors import ConfigError, TocsinError
from tocsin.service.keys import hash_of
from tocsin.service.server import run
from tocsin.service.settings import Limits, Settings, settings_of


def composed(*overrides: str) -> Settings:
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("serve", [settable(override) for override in overrides])
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return settings_of(plain)


def test_configuration_and_code_agree() -> None:
    assert composed() == Settings()


def test_what_the_key_command_prints_can_be_configured() -> None:
    settings = composed(
        f"keys.me={hash_of('abc')}", "host=0.0.0.0", "hosts=[a.example, b.example]", "folder=x"
    )
    assert settings.keys == {"me": hash_of("abc")}
    assert settings.hosts == ("a.example", "b.example")
    assert settings.database == "sqlite:///x/service.db"
    assert settings.folder == Path("x")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "machine.example", "", "localhost.example"])
def test_no_public_address_without_keys(host: str) -> None:
    with pytest.raises(
        ConfigError, match=r"can be reached from other machines, and there are no keys: make one"
    ):
        Settings(host=host)
    assert not Settings(host=host, keys={"me": hash_of("abc")}).local


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_addresses_of_this_machine(host: str) -> None:
    assert Settings(host=host).local


def test_a_key_itself_is_no_hash() -> None:
    with pytest.raises(
        ConfigError, match=r"keys\.me is no hash of a key; python -m tocsin\.service\.keys me"
    ):
        Settings(keys={"me": "abc"})


def test_limits() -> None:
    with pytest.raises(ConfigError, match=r"there is no key limits\.pixel; did you mean pixels"):
        composed("++limits.pixel=3")
    with pytest.raises(ConfigError, match=r"limits\.files=0 is not positive"):
        Settings(limits=Limits(files=0))


@pytest.mark.parametrize("url", ["foo", "sqlite:////nowhere/service.db"])
def test_a_database_that_cannot_be_used_is_found_before_the_server_starts(url: str, tmp_path: Path) -> None:
    with pytest.raises(TocsinError, match=r"is no URL of a database|/nowhere is no folder"):
        run(Settings(folder=tmp_path, models=tmp_path, database=url))
