"""The text of `--help`, read from the configuration itself: the first comment of each file is its line."""

import re
from pathlib import Path

USAGE = {
    "train": """\
{program}: train, calibrate and test a detector

  {program} model=mae data=sliding
  {program} model=pca data=series data.path=my.csv data.label_column=label
  {program} -m model=mae,pca,kmeans,iforest seed=1,2,3
  {program} ckpt_path=last model=mae data=sliding          resume the newest run
""",
    "evaluate": """\
{program}: calibrate and test a trained checkpoint again

  {program} ckpt_path=outputs/.../checkpoints/best.ckpt
  {program} ckpt_path=... threshold=quantile threshold.level=0.995
  {program} ckpt_path=... data.test=other.csv
""",
    "predict": """\
{program}: score new data with a trained checkpoint

  {program} ckpt_path=outputs/.../checkpoints/best.ckpt input=new.csv output=scores.csv
  tail -f live.csv | {program} ckpt_path=... input=-
""",
    "serve": """\
{program}: patches and scores over HTTP

  {program}                                   on http://127.0.0.1:8000, for this machine alone
  {program} port=9000 models=outputs folder=service
  {program} host=0.0.0.0 keys.me=<hash>       for others: python -m tocsin.service.keys me makes a key
""",
    "export": """\
{program}: write a trained detector as an ONNX graph

  {program} ckpt_path=outputs/.../checkpoints/best.ckpt output=model.onnx
""",
}

FOOTER = """\
Any key of the configuration can be set as group.key=value; --cfg job shows all of them.
-m runs every combination of comma-separated values. --hydra-help tells more about the command line.
"""


def help_text(command: str, conf: Path, program: str) -> str:
    """Usage, the options of every group with a line on each, and the top-level keys.

    Args:
        command: `train`, `evaluate`, `predict` or `export`.
        conf: Folder of the configuration.
        program: How the user called it.
    """
    main = (conf / f"{command}.yaml").read_text()
    groups = re.findall(r"^  - (\w+): (\w+)", main, flags=re.MULTILINE)
    parts = [USAGE[command].format(program=program)]
    for group, chosen in groups:
        if any((conf / group).glob("*.yaml")):
            parts.append(_group(group, chosen, conf / group))
    keys = re.findall(r"^(\w+): (\S.*?)  # (.+)$", main, flags=re.MULTILINE)
    if keys:
        rows = [f"  {name + '=' + _default(value):<28} {line}" for name, value, line in keys]
        parts.append("\n".join(["top-level keys", *rows]) + "\n")
    return "\n".join([*parts, FOOTER])


def _group(group: str, chosen: str, folder: Path) -> str:
    rows = [f"{group}="]
    for path in sorted(folder.glob("*.yaml")):
        mark = "*" if path.stem == chosen else " "
        rows.append(f"  {mark} {path.stem:<20} {help_line(path)}")
    return "\n".join(rows) + "\n"


def help_line(path: Path) -> str:
    """First comment of a configuration file that is not a package directive."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return next((line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line), "")


def _default(value: str) -> str:
    return "" if value in ("null", "???", "[]") or "$" in value else value
