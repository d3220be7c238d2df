"""The layers of the package and the house rules that a parser can see."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
MAX_FILE, MAX_FUNCTION = 450, 80  # lines

# From low to high, as in docs/architecture.md: a module may import only from its own and lower rows.
LAYERS = [
    ["errors", "batch", "processes"],
    ["metrics", "evaluation"],
    ["data"],
    ["plots", "scoring"],
    ["models"],
    ["config", "checkpoints", "optimizers", "schedulers", "results", "jobs", "tasks", "hyper_parameters"],
    ["results_table", "finished_runs", "compare", "overrides"],
    ["leaderboard", "board_columns", "board_links"],
    ["callbacks"],
    [
        "devices",
        "distributed",
        "members",
        "pipeline",
        "streaming",
        "series_prediction",
        "image_prediction",
        "class_prediction",
        "patch_prediction",
        "prediction",
        "onnx_export",
        "run_pictures",
    ],
    ["search"],
    ["help", "cli", "export", "visualize", "sweep_job", "job_launcher", "tensorboard"],
]
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def imports(tree: ast.AST, known: dict[str, Path] = FILES) -> Iterator[str]:
    """Full names of all imported modules and names, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known or not node.module.startswith("tocsin") else node.module


def imported_by(name: str) -> set[str]:
    return set(imports(TREES[name]))


def crosses(name: str, imported: str) -> bool:
    """Whether a module imports from a layer above its own."""
    own, other = (re.match(r"tocsin\.(\w+)", full) for full in (name, imported))
    return bool(own and other) and LEVEL.get(other[1], -1) > LEVEL[own[1]]


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of a graph; empty if there is none."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if found := walk(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


def called(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def broad_handlers(tree: ast.AST) -> list[int]:
    """Lines of handlers that swallow everything; to clean up and raise again is fine."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]


def long_functions(tree: ast.AST) -> list[str]:
    """Functions with a long body; a signature of many options is a table, and counts for nothing."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.body[0].lineno + 1
            if lines > MAX_FUNCTION:
                found.append(f"{node.name} ({lines} lines)")
    return found


# --- layers -------------------------------------------------------------------------------------------------


def test_no_module_imports_from_a_layer_above() -> None:
    wrong = [f"{name} <- {other}" for name in FILES for other in imported_by(name) if crosses(name, other)]
    assert wrong == []


def test_every_module_has_its_layer() -> None:
    """One that is added or renamed must not escape the rule."""
    top = {name.split(".")[1] for name in FILES if name.startswith("tocsin.")}
    assert set(LEVEL) == top


def test_import_graph_has_no_cycle() -> None:
    graph = {name: imported_by(name) & FILES.keys() for name in FILES}
    assert cycle(graph) == []
    assert sum(map(len, graph.values())) > len(FILES)  # the graph was really read


def test_only_the_pipeline_builds_from_configurations() -> None:
    users = [name for name in FILES if any("instantiate" in other for other in imported_by(name))]
    assert users == ["tocsin.pipeline"]


@pytest.mark.parametrize("layer", ["models", "metrics"])
def test_nets_and_metrics_know_nothing_of_lightning_or_hydra(layer: str) -> None:
    heavy = ("lightning", "pytorch_lightning", "hydra", "omegaconf")
    wrong = [
        f"{name} <- {other}"
        for name in FILES
        if name.startswith(f"tocsin.{layer}")
        for other in imported_by(name)
        if other.split(".")[0] in heavy
    ]
    assert wrong == []


def test_modules_are_imported_absolutely_and_by_the_name_of_the_package() -> None:
    own = [name for name in FILES if any(other.split(".")[0] == "src" for other in imported_by(name))]
    assert own == []


# --- house rules --------------------------------------------------------------------------------------------


def test_no_module_called_utils() -> None:
    assert [
        name for name in FILES if {"utils", "util", "helpers", "misc", "common"} & set(name.split("."))
    ] == []


def test_nothing_prints() -> None:
    assert [name for name, tree in TREES.items() if "print" in called(tree)] == []


def test_no_error_is_swallowed() -> None:
    assert {name: lines for name, tree in TREES.items() if (lines := broad_handlers(tree))} == {}


def test_files_and_functions_can_be_read_at_a_sitting() -> None:
    long = {name: n for name, path in FILES.items() if (n := len(path.read_text().splitlines())) > MAX_FILE}
    assert long == {}
    assert {name: found for name, tree in TREES.items() if (found := long_functions(tree))} == {}


def test_every_module_says_what_it_is() -> None:
    assert [name for name, tree in TREES.items() if not ast.get_docstring(tree)] == []


# --- the rules themselves -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import tocsin.cli",
        "from tocsin import cli",
        "from tocsin.cli import train",
        "def f():\n    from tocsin.tasks.base import Task",
        "if True:\n    from tocsin.pipeline import train",
    ],
)
def test_an_import_from_above_is_seen_wherever_it_hides(source: str) -> None:
    found = list(imports(ast.parse(source)))
    assert any(crosses("tocsin.data.base", other) for other in found)
    assert crosses("tocsin.models.base", "tocsin.members")
    assert not crosses("tocsin.models.base", "tocsin.data.injection")
    assert not any(crosses("tocsin.cli", other) for other in found)


def test_a_cycle_is_seen() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_a_swallowed_error_is_seen() -> None:
    handlers = "try:\n  f()\nexcept{}:\n  {}"
    assert broad_handlers(ast.parse(handlers.format("", "pass"))) == [3]
    assert broad_handlers(ast.parse(handlers.format(" Exception as e", "g(e)"))) == [3]
    assert broad_handlers(ast.parse(handlers.format(" BaseException", "raise"))) == []
    assert broad_handlers(ast.parse(handlers.format(" ValueError", "pass"))) == []


def test_a_long_function_is_seen() -> None:
    body = "\n".join("    x = 1" for _ in range(MAX_FUNCTION + 1))
    assert long_functions(ast.parse(f"def f():\n{body}")) == [f"f ({MAX_FUNCTION + 1} lines)"]
