"""The pages that the code itself is the source of: one for each command, and one for each public package."""

from __future__ import annotations

import ast
import importlib
import inspect
import operator
import pkgutil
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sphinx.pycode import ModuleAnalyzer

import tlkit
from tlkit import __main__ as program
from tlkit.cli import helptext, parsing


def write(folder: Path) -> None:
    """Write the pages of `folder`/commands and `folder`/packages; a page that stays the same is not touched."""
    commands = {row.name: command_page(row.name, row.does) for row in program.COMMANDS}
    commands["index"] = commands_index()
    packages = {name: package_page(name) for name in public_modules()}
    packages["index"] = packages_index()
    for kind, pages in (("commands", commands), ("packages", packages)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in (folder / kind).glob("*.md"):
            if path.stem not in pages:
                path.unlink()
        for name, text in pages.items():
            path = folder / kind / f"{name}.md"
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")


class Command(NamedTuple):
    """What a recipe's module says of its command.

    Args:
        doc: Docstring of the module.
        config: The dataclass of its settings.
        positional: Settings that are given by place.
    """

    doc: str
    config: type
    positional: Sequence[str]


def command(name: str) -> Command:
    """Read a command off its module, whose last line is `cli.main(Config, run, positional=...)`."""
    module = importlib.import_module(f"tlkit.recipes.{name}")
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)]
    main = next(call for call in calls if ast.unparse(call.func) == "cli.main")
    positional = next((ast.literal_eval(word.value) for word in main.keywords if word.arg == "positional"), ())
    config = operator.attrgetter(ast.unparse(main.args[0]))(module)
    return Command(module.__doc__ or "", config, positional)


def command_page(name: str, summary: str) -> str:
    """Write the page of a command: what it is for, how it is called, and all of its settings by group."""
    about = command(name)
    purpose, _, rest = about.doc.strip().partition("\n\n")
    lines = [f"# tlkit {name}", "", " ".join(purpose.split()), "", "```console"]
    example = re.search(r"^python -m tlkit\.recipes\.(.+)$", rest, re.MULTILINE)
    lines += [f"$ tlkit {example[1] if example else name}", "```", ""]
    if about.positional:
        places = parsing.usage(about.config, f"tlkit {name}", about.positional)
        lines += [f"Without the names of settings: `{places}`.", ""]
    lines += [
        "The settings below are flags of the command and keys of its YAML file (`--config FILE`); `--print_config`",
        "prints all of them with their values. `tlkit " + name + " --help` shows the ones people use first.",
        "",
    ]
    group = None
    for setting, words in helptext.describe_settings(about.config).items():
        if words.group != group:
            group = words.group
            title, _, purpose = group.rstrip(":").removesuffix(")").partition(" (")
            lines += [f"## {title or 'General'}", ""]
            lines += [f"{escaped(purpose[:1].upper() + purpose[1:])}.", ""] if purpose else []
        shown = setting.upper() if setting in about.positional else f"--{setting}"
        lines += [f"`{shown}`", f": {escaped(words.description)}  ", f"  *{escaped(words.takes)}*", ""]
    return "\n".join(lines)


def commands_index() -> str:
    """Write the list of all commands by task."""
    lines = [
        "# Commands",
        "",
        "`tlkit COMMAND` and `python -m tlkit.recipes.COMMAND` are the same; commands answer in the spelling you use.",
        "",
    ]
    for task in dict.fromkeys(row.task for row in program.COMMANDS):
        rows = [f"| [`{row.name}`]({row.name}.md) | {row.does} |" for row in program.COMMANDS if row.task == task]
        lines += [f"## {task.capitalize()}", "", "| command | |", "|---|---|", *rows, ""]
    return "\n".join([*lines, *toctree(row.name for row in program.COMMANDS)])


def public_modules() -> list[str]:
    """Name the modules that `import tlkit` offers."""
    return sorted(name for name in dir(tlkit) if not name.startswith("_") and inspect.ismodule(getattr(tlkit, name)))


def package_page(name: str) -> str:
    """Write the page of a package: what it exports, and the modules that it is made of."""
    module = importlib.import_module(f"tlkit.{name}")
    lines = [f"# tlkit.{name}", "", "```{eval-rst}", f".. automodule:: tlkit.{name}"]
    lines += exported(module) if hasattr(module, "__all__") else ["   :members:"]
    lines += ["```", ""]
    inside = [importlib.import_module(f"tlkit.{name}.{part}") for part in submodules(module)]
    if inside:
        lines += ["## Modules", "", "| module | |", "|---|---|"]
        lines += [f"| `{part.__name__}` | {escaped(first_line(part))} |" for part in inside]
        lines += [""]
    return "\n".join(lines)


def exported(module: ModuleType) -> list[str]:
    """Write directives for what a package exports: functions, then classes, then constants with their texts."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    imported = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    order = [*(name for name in imported if name in module.__all__), *module.__all__]  # as the package has them
    names = {name: getattr(module, name) for name in dict.fromkeys(order)}
    lines = [""]
    for name in sorted(names, key=lambda name: (not inspect.isfunction(names[name]), not inspect.isclass(names[name]))):
        if inspect.isfunction(names[name]):
            lines += [f".. autofunction:: {module.__name__}.{name}", ""]
        elif inspect.isclass(names[name]):
            lines += [f".. autoclass:: {module.__name__}.{name}", "   :members:", ""]
        elif not inspect.ismodule(names[name]):
            text = " ".join(constants(module).get(name, ["A constant."]))
            lines += [f".. py:data:: {module.__name__}.{name}", "", f"   {text}", ""]
    return lines


def constants(module: ModuleType) -> dict[str, list[str]]:
    """Give the strings below the constants of a package's modules, by the constants' names."""
    texts: dict[str, list[str]] = {}
    for part in submodules(module):
        documented = ModuleAnalyzer.for_module(f"{module.__name__}.{part}").find_attr_docs()
        texts |= {name: lines for (owner, name), lines in documented.items() if not owner}
    return texts


def packages_index() -> str:
    """Write the list of all packages."""
    rows = [
        f"| [`tlkit.{name}`]({name}.md) | {escaped(first_line(getattr(tlkit, name)))} |" for name in public_modules()
    ]
    head = ["# Packages", "", "| package | |", "|---|---|"]
    return "\n".join([*head, *rows, "", *toctree(public_modules())])


def submodules(module: ModuleType) -> list[str]:
    """Name the public modules inside a package."""
    return sorted(part.name for part in pkgutil.iter_modules(getattr(module, "__path__", [])) if part.name[0] != "_")


def toctree(names: Any) -> list[str]:
    """Write a table of contents that only the navigation shows."""
    return ["```{toctree}", ":hidden:", "", *names, "```", ""]


def first_line(module: ModuleType) -> str:
    """Give the first sentence of a module's docstring."""
    return " ".join((module.__doc__ or "").strip().partition("\n\n")[0].split())


def escaped(text: str) -> str:
    """Escape what Markdown would read as markup, outside of code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<>|\[\]$])", r"\\\1", part) for part in parts)


def plain_stars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape stars and bars outside of code, as `(batch, *space, channels)` is no emphasis, and list nested shapes."""
    for number, line in enumerate(lines):
        if line.endswith(": a list of"):  # features: ... and edges: ..., one step further in
            inner = len(line) - len(line.lstrip()) + 4
            lines[number] += "\n"
            for below in range(number + 1, len(lines)):
                if len(lines[below]) - len(lines[below].lstrip()) == inner:
                    lines[below] = f"{' ' * inner}- {lines[below].lstrip()}"
                elif len(lines[below]) - len(lines[below].lstrip()) > inner:
                    lines[below] = f"{' ' * inner}  {lines[below].lstrip()}"
                else:
                    break
    lines[:] = "\n".join(lines).split("\n")
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`[^`]*`)", line)
            parts = [part if part.startswith("`") else re.sub(r"([*|])", r"\\\1", part) for part in parts]
            lines[number] = "".join(parts)


def skipped(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of a NamedTuple, which its `Args:` explain."""
    return True if type(obj).__name__ == "_tuplegetter" else None
