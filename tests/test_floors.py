"""The layout of the package: a module imports only from floors below its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tlkit"

FLOORS = [
    {"atomic", "autolog", "cores", "display", "errors"},
    {"pages", "startup", "untrusted"},
    {"cluster", "inference", "labels", "progress", "runtime"},
    {"config", "plots"},
    {"arithmetic", "cli", "data", "evaluation", "layers", "mlflow_plugin", "probes", "reference"},
    {"backbones", "explanation", "features", "report", "tracking"},
    {"anatomy", "builders", "export", "inspection", "serving", "training"},
    {"tuning"},
    {"recipes"},
    {"__main__"},
]
FRAMEWORKS = {"keras", "tensorflow", "jax", "torch", "mlflow", "sklearn", "matplotlib", "keras_tuner"}


def floor(module: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if module in names)


def own_imports(path: Path) -> set[str]:
    """Names of tlkit's first-level modules that a file imports, inside functions too; relative ones are refused."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise ValueError(f"{path.name}, line {node.lineno}: a relative import; write `from tlkit ...`")
        if isinstance(node, ast.ImportFrom) and node.module == "tlkit":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tlkit."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tlkit.")}
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def first_level(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("line", ["from ..recipes import x", "from . import x", "def f():\n    from .recipes import x"])
def test_relative_imports_do_not_pass(tmp_path: Path, line: str):
    (tmp_path / "module.py").write_text(line, encoding="utf-8")
    with pytest.raises(ValueError, match=r"module\.py, line \d: a relative import"):
        own_imports(tmp_path / "module.py")


def test_every_module_has_one_floor():
    assert {first_level(path) for path in MODULES} == set().union(*FLOORS)
    assert sum(map(len, FLOORS)) == len(set().union(*FLOORS))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path: Path):
    here = first_level(path)
    upward = {name for name in own_imports(path) - {here} if floor(name) >= floor(here)}
    assert not upward, f"{path.name} imports {upward} from its own floor or above"


@pytest.mark.parametrize("path", sorted((PACKAGE / "recipes").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_only_tune_imports_another_recipe(path: Path):
    imported = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "tlkit.recipes"
        for alias in node.names
    }
    assert path.stem == "tune" or all(name.startswith("_") for name in imported)


@pytest.mark.parametrize("path", sorted((PACKAGE / "recipes").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_recipes_are_functions_and_load_no_framework_at_the_top(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node for node in tree.body if isinstance(node, ast.ClassDef)]
    top = {
        alias.name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in ([ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)
    }
    assert not top & FRAMEWORKS


def opened_without_encoding(tree: ast.AST) -> list[int]:
    """Lines that open, read or write text in whatever encoding the platform has."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(keyword.arg in ("encoding", None) for keyword in node.keywords):
            continue
        method = isinstance(node.func, ast.Attribute)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = node.args if method else node.args[1:]  # without the path
        modes = [keyword.value for keyword in node.keywords if keyword.arg == "mode"] or given[:1]
        mode = getattr(modes[0], "value", None) if modes else "r"
        if called == "open":  # a method's first argument may be something else, such as the photo of Image.open
            wrong = isinstance(mode, str) and set(mode) <= set("rwxat+")
        else:
            wrong = {"read_text": not given, "write_text": len(given) < 2}.get(called, False)
        if wrong:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("code", ["open(p{})", "open(p, 'w'{})", "p.open('a'{})", "p.open(*[]{})", "p.write_text(t{})"])
def test_text_without_an_encoding_does_not_pass(code: str):
    assert opened_without_encoding(ast.parse(code.format("").replace("*[]", ""))) == [1]
    assert not opened_without_encoding(ast.parse(code.format(", encoding='utf-8'")))
    assert not opened_without_encoding(
        ast.parse("open(p, 'rb'), p.open('wb'), Image.open(p), archive.open('a.txt', 'w')")
    )


@pytest.mark.parametrize("folder", ["tlkit", "tests", "benchmarks"])
def test_text_is_read_and_written_as_utf8(folder: str):
    files = sorted((PACKAGE.parent / folder).rglob("*.py"))
    assert files
    lines = {
        f"{path.name}:{line}"
        for path in files
        for line in opened_without_encoding(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not lines
