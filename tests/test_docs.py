"""Pages promise files, targets, options and modules: all of them must exist."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from tocsin.config import conf_dir

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

GROUPS = {path.name for path in conf_dir().iterdir() if path.is_dir() and path.name != "hydra"}
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def code_of(text: str) -> Iterator[str]:
    """Lines of fenced blocks, and inline code."""
    fenced = re.compile(r"^```.*?\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
    for block in fenced.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", fenced.sub("", text))


def prose_of(text: str) -> str:
    """A page without code, where brackets are no links."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken_links(page: Path) -> Iterator[str]:
    prose = prose_of(page.read_text())
    links = re.findall(r"\]\(<?([^)\s>]+)>?[^)]*\)", prose)
    links += re.findall(r"<img[^>]*src=[\"']([^\"']+)", prose)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists():
            yield f"link {link}"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            yield f"anchor {link}"


def broken_targets(text: str) -> Iterator[str]:
    for line in code_of(text):
        for target in re.findall(r"(?:^|[;&|]|\$ )\s*make ([a-z][\w-]*)", line.strip()):
            if target not in TARGETS:
                yield f"make {target}"


def defaults_of(name: str) -> dict[str, str]:
    """Group and option of each line of a defaults list."""
    entries = OmegaConf.load(conf_dir() / name).get("defaults", [])
    return {str(k): str(v) for entry in entries if isinstance(entry, DictConfig) for k, v in entry.items()}


def options_in(line: str) -> Iterator[tuple[str, str]]:
    """Group and option of each override of a command; lists are several options, `...` and `<x>` none."""
    for word in re.sub(r"ARGS=|['\"]", " ", line.split("  # ")[0]).split():
        found = re.fullmatch(r"\+{0,2}([a-z]+)=([\w,()*\-]+)", word)
        if found and found.group(1) in GROUPS:
            values = found.group(2)
            if globbed := re.fullmatch(r"glob\((.+)\)", values):
                yield found.group(1), globbed.group(1)
            elif re.fullmatch(r"[\w,-]+", values):
                yield from ((found.group(1), value) for value in values.split(","))


def broken_options(text: str, new: frozenset[str] = frozenset()) -> Iterator[str]:
    for line in code_of(text):
        if not re.search(r"\bpython |\bmake |tocsin-|^[a-z]+=\w", line):
            continue
        for group, option in options_in(line):
            if option not in ("null", *new) and not any((conf_dir() / group).glob(f"{option}.yaml")):
                yield f"{group}={option}"


def new_in(text: str) -> frozenset[str]:
    """Options that a page tells how to add: it shows their file, and an option is called like its module."""
    return frozenset(re.findall(r"^_target_: tocsin\.\w+\.(\w+)\.\w+$", text, flags=re.MULTILINE))


def broken_modules(text: str) -> Iterator[str]:
    for line in code_of(text):
        for module in re.findall(r"python3? -m (tocsin[\w.]*)", line):
            try:
                found = importlib.util.find_spec(module)
            except ModuleNotFoundError:  # of a parent
                found = None
            if found is None:
                yield f"python -m {module}"


def broken_scripts(text: str) -> Iterator[str]:
    for line in code_of(text):
        for script in re.findall(r"python3? ([\w/]+\.py)\b", line):
            if not (ROOT / script).exists():
                yield f"python {script}"


def broken(page: Path) -> list[str]:
    text = page.read_text()
    found = [*broken_targets(text), *broken_options(text, new_in(text))]
    return [*broken_links(page), *found, *broken_modules(text), *broken_scripts(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_promises_only_what_exists(page: Path) -> None:
    assert broken(page) == []


def test_help_of_the_makefile_lists_its_targets() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.+)$", text, flags=re.MULTILINE).group(1).split())  # type: ignore[union-attr]
    assert phony == {target for target in TARGETS if not target.startswith(".")}
    assert {"setup", "train", "test", "test-all", "lint", "bench", "tensorboard", "docs"} <= phony


def test_default_options_exist() -> None:
    for main in ("train.yaml", "evaluate.yaml", "predict.yaml"):
        for group, option in defaults_of(main).items():
            name = group.removeprefix("override ")
            assert option == "None" or (conf_dir() / name / f"{option}.yaml").exists(), (main, group, option)


# --- the checks themselves ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("See [here](missing.md).", ["link missing.md"]),
        ("See [here](page.md#no-such-part).", ["anchor page.md#no-such-part"]),
        ("![picture](images/none.png)", ["link images/none.png"]),
        ('<img src="images/none.png" width="400">', ["link images/none.png"]),
        ("Call `make tset`.", ["make tset"]),
        ("```\nmake tset\n```", ["make tset"]),
        ("```\npython train.py model=mea data=sliding\n```", ["model=mea"]),
        ("```\npython train.py -m model=mae,mea data=sliding,x\n```", ["model=mea", "data=x"]),
        ("```\npython train.py model=mae \\\n  threshold=pto\n```", ["threshold=pto"]),
        ("```\npython train.py -m 'experiment=glob(nothing_like_it*)'\n```", ["experiment=nothing_like_it*"]),
        ('```\nmake train ARGS="model=mea data=sliding"\n```', ["model=mea"]),
        ("Choose `model=mea`.", ["model=mea"]),
        ("```\npython -m tocsin.leaderbord\n```", ["python -m tocsin.leaderbord"]),
        ("`python -m tocsin.no.such`", ["python -m tocsin.no.such"]),
        ("`python trian.py`", ["python trian.py"]),
    ],
)
def test_broken_promises_are_found(tmp_path: Path, line: str, found: list[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{line}\n")
    assert broken(page) == found


def test_kept_promises_pass(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n## Part one: a `b`\n\n[a](page.md) [b](#part-one-a-b) [c](https://example.org/none)\n"
        "We make sure of it. `make test` and `x = [1](2)`\n"
        "```\n$ make train ARGS='model=pca'\n"
        "python train.py model=mae data=sliding threshold.level=0.9  # model=not_read\n"
        "python train.py -m model=mae,pca seed=1,2\npython evaluate.py ckpt_path=outputs/.../best.ckpt\n"
        "python -m tocsin.cli\npython train.py model=<yours>\n```\n"
        "Add `conf/model/mine.yaml`:\n```yaml\n# My own\n_target_: tocsin.models.mine.Mine\n```\n"
        "```\npython train.py model=mine\n```\n"
    )
    assert broken(page) == []
