"""Keys: random, stored as hashes, and told from others whatever they hold."""

import hashlib
import subprocess
import sys

import pytest

from tocsin.service.keys import hash_of, holder, is_hash, main, new_key


def test_hash_is_the_sha256_of_the_key() -> None:
    assert hash_of("abc") == f"sha256-{hashlib.sha256(b'abc').hexdigest()}"
    assert is_hash(hash_of("abc"))
    for text in ("", "abc", hash_of("abc")[:-1], hash_of("abc").upper(), hash_of("abc") + "\n"):
        assert not is_hash(text)


def test_keys_are_long_and_never_the_same() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 43  # 256 bits


def test_holder() -> None:
    hashes = {"me": hash_of("abc"), "you": hash_of("äöü")}
    assert holder("abc", hashes) == "me"
    assert holder("äöü", hashes) == "you"
    for key in ("", "abcd", "ABC", hashes["me"], "\udcff"):
        assert holder(key, hashes) is None
    assert holder("abc", {}) is None


def test_command_shows_a_key_and_how_to_configure_it(capsys: pytest.CaptureFixture[str]) -> None:
    main(["me"])
    first, second = capsys.readouterr().out.splitlines()
    key = first.removeprefix("key, shown this once: ")
    assert second == f"to configure the server: keys.me={hash_of(key)}"
    with pytest.raises(SystemExit):
        main(["a b"])
    assert "'a b' is no name: up to 64 letters, digits and _ are" in capsys.readouterr().err


def test_help() -> None:
    command = [sys.executable, "-m", "tocsin.service.keys", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Authorization: Bearer <key>" in done.stdout
