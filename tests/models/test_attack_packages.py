"""Importing ultralytics and ART must leave the process and the home folder as they were."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tocsin.errors import ConfigError
from tocsin.models import attack_packages

CHECK = """
import os, torch, PIL.Image, cv2, numpy as np
import tocsin.models.attack_packages as packages
before = (dict(os.environ), torch.save, PIL.Image.open, cv2.getNumThreads(), np.get_printoptions())
packages.require_ultralytics()
packages.require_art()
after = (dict(os.environ), torch.save, PIL.Image.open, cv2.getNumThreads(), np.get_printoptions())
assert before == after
from ultralytics.utils import AUTOINSTALL, ONLINE, SAFE_LOAD
assert not AUTOINSTALL and not ONLINE and SAFE_LOAD
"""


@pytest.mark.slow  # a new process imports everything
def test_imports_leave_nothing_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", CHECK], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    written = [path.name for path in home.rglob("*") if path.is_file() and "matplotlib" not in str(path)]
    assert written == []


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(ConfigError, match=r"the package absent, .* pip install tocsin\[attack\]"):
        attack_packages._require("absent", ("absent.part",))


def test_a_package_that_lacks_one_of_its_own_is_not_taken_for_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match="absent"):
        attack_packages._require("ultralytics", ("absent.part",))
