"""YAML from outside: plain settings, in which a date is text, 1e-4 a number and nothing stands for something else."""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any

from tlkit.display import shown
from tlkit.errors import InvalidInput

if TYPE_CHECKING:
    import yaml

LONGEST_YAML, DEEPEST_YAML = 2**20, 50  # bytes, and mappings and lists inside each other
_NUMBER = re.compile(
    r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))\Z|\.(?:nan|NaN|NAN)\Z"
)  # YAML 1.1 takes 1e-4 for text


class _NotPlain(Exception):
    """Something that plain settings do not have: the message, and the mark of the place."""

    def __init__(self, message: str, mark: yaml.Mark):
        super().__init__(message)
        self.mark = mark


def parse_yaml(text: str, what: str) -> Any:
    """Parse YAML from outside: mappings, lists and scalars, each written out once.

    `1e-4` is a number and a date is text; `yes` and `no` are booleans, as in YAML 1.1.

    Raises:
        InvalidInput: it is not YAML; a key comes twice; it has an anchor, an alias or a tag; it is too large or nested
            too deeply to be one of ours.

    >>> parse_yaml("{rate: 1e-4, day: 2024-01-01, strict: yes}", "run.yaml")
    {'rate': 0.0001, 'day': '2024-01-01', 'strict': True}
    >>> parse_yaml("a: 1\\na: 2", "run.yaml")
    Traceback (most recent call last):
        ...
    tlkit.errors.InvalidInput: run.yaml, line 2: a is given twice; give it once
    """
    import yaml

    if len(text) > LONGEST_YAML:
        raise InvalidInput(f"{what} is larger than {LONGEST_YAML:,} bytes: it is not a file of settings")
    mark: yaml.Mark | None = None
    try:
        _check_plain(text)  # before anything is constructed from it
        return yaml.load(text, Loader=_loader())  # noqa: S506 (a safe one)
    except _NotPlain as error:
        problem, mark = str(error), error.mark
    except yaml.MarkedYAMLError as error:
        problem, mark = _syntax_problem(error, text)
    except yaml.YAMLError as error:  # characters that YAML does not allow
        problem = f"it is not YAML: {getattr(error, 'reason', error)}"
    except ValueError:
        problem = "a number in it cannot be read"
    except (RecursionError, MemoryError):
        problem = "it is too large"
    place = f", line {mark.line + 1}" if mark and "\n" in text.strip() else ""
    raise InvalidInput(f"{what}{place}: {shown(problem)}")


def _check_plain(text: str) -> None:
    """Refuse anchors, aliases, tags and deep nesting."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=_loader()):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        mark, anchor, tag = event.start_mark, getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise _NotPlain(f"{sign}{anchor} is an anchor or alias of YAML; write out what it stands for", mark)
        if tag is not None:
            name = tag.replace("tag:yaml.org,2002:", "!!")
            raise _NotPlain(f"{name} is a tag of YAML; plain settings have none", mark)
        if depth > DEEPEST_YAML:
            raise _NotPlain(f"it is nested more than {DEEPEST_YAML} deep", mark)


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> tuple[str, yaml.Mark | None]:
    """Say what is wrong with the syntax, and where."""
    import yaml

    unclosed = isinstance(error, yaml.scanner.ScannerError)  # something begins at the context's mark and does not end
    mark = (error.context_mark if unclosed else None) or error.problem_mark
    problem = f"it is not YAML: {error.problem}"
    if "another document" in problem:
        problem = "a second document begins; there may be one"
    elif mark and re.match(r" *\t", "".join(text.splitlines()[mark.line : mark.line + 1])):
        problem = "it begins with a tab; YAML is indented by blanks"
    return problem, mark


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Read a file of YAML with `parse_yaml`.

    Raises:
        InvalidInput: it cannot be read, or is not YAML as `parse_yaml` takes it.
    """
    return parse_yaml(yaml_text(path), shown(path))


def yaml_line(text: str, name: str) -> int:
    """Find the line of YAML with the setting of a dotted name, or else the group that it belongs to.

    >>> yaml_line("seed: 1\\nfull:\\n  epochs: 3", "full.epochs")
    3
    """
    import yaml

    node, line = yaml.compose(text, Loader=_loader()), 1
    while name and isinstance(node, yaml.MappingNode):
        for key, inner in node.value:
            if f"{name}.".startswith(f"{key.value}."):
                node, line, name = inner, key.start_mark.line + 1, name[len(key.value) + 1 :]
                break
        else:
            break
    return line


def yaml_text(path: str | os.PathLike[str]) -> str:
    """Read the text of a file that should be YAML, up to the size that is allowed.

    Raises:
        InvalidInput: it cannot be read, or is not text.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LONGEST_YAML + 1)
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {shown(path)}") from None
    except IsADirectoryError:
        raise InvalidInput(f"{shown(path)} is a folder; a file with settings as YAML is wanted") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{shown(path)} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > LONGEST_YAML:
        raise InvalidInput(f"{shown(path)} is larger than {LONGEST_YAML:,} bytes: it is not a file of settings")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidInput(
            f"{shown(path)}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
            mapping: dict[object, object] = {}
            for key_node, value_node in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    raise _NotPlain(
                        "the name of a setting is a list or a mapping; it must be a word", key_node.start_mark
                    )
                key = self.construct_object(key_node)
                if key in mapping:
                    raise _NotPlain(f"{key} is given twice; give it once", key_node.start_mark)
                mapping[key] = self.construct_object(value_node, deep=deep)
            return mapping

    converted = ("bool", "int", "null")  # not dates, which stay text, and no merging of mappings
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in converted]
        for first, resolvers in base.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))
    return Loader


def dump_yaml(value: object, **style: Any) -> str:
    """Write YAML that `parse_yaml` reads back as the same value.

    Args:
        value: Mappings, lists and scalars.
        style: Options of `yaml.dump`.

    >>> dump_yaml({"name": "12e3", "rates": [1e-5, 12]})
    "name: '12e3'\\nrates:\\n- 1.0e-05\\n- 12\\n"
    """
    import yaml

    text: str = yaml.dump(value, Dumper=_dumper(), allow_unicode=True, **{"sort_keys": False, **style})
    return text


@functools.cache
def _dumper() -> type[yaml.SafeDumper]:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))
    return Dumper
