"""Pre-commit hook: every YAML and TOML file given must parse."""

import sys
import tomllib
from pathlib import Path

import yaml


def main(paths: list[str]) -> int:
    """Number of files that do not parse; each is named on standard error."""
    faults = 0
    for path in map(Path, paths):
        try:
            if path.suffix == ".toml":
                tomllib.loads(path.read_text())
            else:
                yaml.safe_load(path.read_text())
        except (yaml.YAMLError, tomllib.TOMLDecodeError) as error:
            sys.stderr.write(f"{path}: {error}\n")
            faults += 1
    return faults


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
