"""Text from outside, made safe to show: nothing in it moves a terminal's cursor or becomes markup."""

from __future__ import annotations

import os
import re
import shlex
import sys
import unicodedata
from collections.abc import Sequence

JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # invisible parts of words and of emoji, without risk
_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories of invisible characters that have an effect
_PLAIN = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    | {sign: f"\\{sign}" for sign in r"\`*_{}[]#!|~"}
    | {sign: f"&#{ord(sign)};" for sign in "$@"}  # mathematics and people: a backslash is not for them
)
_FIRST = re.compile(r"^( *\d*)([-+.()])")  # begins a list, or where a link leads if a bracket stands before
_LINKED = re.compile(r":(?=\S)|(?<=www)\.", re.IGNORECASE)  # begins an emoji, or is within a link

PROGRAM: list[str] = []
"""How `tlkit` itself was called, when it runs a recipe: `tlkit`, its path, or `python -m tlkit`."""


def shown(text: object) -> str:
    """Write text from outside in one line, its control characters as escapes, as Python writes them.

    Bytes of a file name that are not UTF-8 are shown as bytes. Line ends, invisible characters and those that change
    the direction of writing are escaped too.

    >>> shown("caf\\u00e9"), shown("red\\x1b[31m\\n"), shown(b"caf\\xe9".decode(errors="surrogateescape"))
    ('café', 'red\\\\x1b[31m\\\\n', 'caf\\\\xe9')
    """
    text = str(text)
    return text if text.isprintable() else "".join(_escaped(letter) if _steers(letter) else letter for letter in text)


def _steers(letter: str) -> bool:
    return unicodedata.category(letter) in _STEERING and letter not in JOINERS


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # `os.fsdecode` makes these of bytes that are not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def cut(text: str, most: int = 60) -> str:
    """Cut off the end of a long text.

    >>> cut("abcdefghij", 6)
    'abcdef…'
    """
    return text if len(text) <= most else f"{text[:most]}…"


def short(text: str, most: int = 1000) -> str:
    """Cut out the middle of a long text.

    >>> short("abcdefghij", 6)
    'abc … hij'
    """
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-(most // 2) :]}"


def lines(text: object) -> str:
    """Write text for a terminal as `shown` does, but keep its line ends and tabs.

    >>> lines("two\\nlines\\x07")
    'two\\nlines\\\\x07'
    """
    return re.sub(r"[^\n\t]+", lambda part: shown(part[0]), str(text))


def markdown(text: object) -> str:
    r"""Write text from outside so that Markdown and HTML show it as it is.

    >>> markdown("<b>*cat*</b>")
    '&lt;b&gt;\\*cat\\*&lt;/b&gt;'
    >>> markdown("accuracy: 0.9 (here)"), markdown("1. cat"), markdown("http://x")
    ('accuracy: 0.9 (here)', '1\\. cat', 'http&#58;//x')
    """
    plain = _FIRST.sub(r"\1\\\2", shown(text).translate(_PLAIN))
    return _LINKED.sub(lambda part: f"&#{ord(part[0])};", plain)


def code(text: object) -> str:
    """Write text from outside as code in Markdown, which no backtick in it ends.

    >>> code("cat"), code("`<b>`")
    ('`cat`', '`` `<b>` ``')
    """
    plain = shown(text)
    fence = "`" * (max(map(len, re.findall("`+", plain)), default=0) + 1)
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{plain}{space}{fence}"


def few(names: Sequence[str], most: int = 10) -> str:
    """List the first names in one line, as `shown` writes them.

    >>> few(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    rest = len(names) - most
    return ", ".join(shown(name) for name in names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def quoted(word: str) -> str:
    r"""Quote a word for the shell, in one line: control characters and bytes as bash and zsh read them.

    >>> quoted("a b"), quoted("it's\n")
    ("'a b'", "$'it\\'s\\x0a'")
    """
    if shown(word) == word:
        return shlex.quote(word)
    letters = (
        "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter)) if _steers(letter) else letter
        for letter in re.sub(r"[\\']", r"\\\g<0>", word)
    )
    return f"$'{''.join(letters)}'"


def called(recipe: str, python: str = "python") -> str:
    """Write the command of a recipe in the spelling by which this process was called.

    >>> called("sync")
    'python -m tlkit.recipes.sync'
    """
    first, *rest = [*PROGRAM, recipe] if PROGRAM else ["python", "-m", f"tlkit.recipes.{recipe}"]
    return " ".join([python if first == "python" else quoted(first), *rest])


def say(*texts: object, error: bool = False, end: str = "\n") -> None:
    """Print at once; all of tlkit's output comes this way, so that no name can control a terminal.

    Args:
        texts: Texts to print, with blanks between them.
        error: Print on stderr, apart from the output of a command.
        end: Text that follows.
    """
    stream = sys.stderr if error else sys.stdout
    text = lines(" ".join(map(str, texts)))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), end=end, file=stream, flush=True)
