"""Text from outside, on its way to a person: nothing in it moves a terminal's cursor or becomes markup."""

from __future__ import annotations

import re
import sys

JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # parts of words and of emoji, not visible and no risk
_ACTIVE = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$])")


def shown(text: object) -> str:
    """Write text from outside in one line, its control characters as escapes, as Python writes them.

    Bytes of a file name that are not UTF-8 are shown as bytes. Line ends, invisible characters and those that change
    the direction of writing are escaped too.

    >>> shown("caf\\u00e9"), shown("red\\x1b[31m\\n"), shown(b"caf\\xe9".decode(errors="surrogateescape"))
    ('café', 'red\\\\x1b[31m\\\\n', 'caf\\\\xe9')
    """
    return "".join(letter if letter.isprintable() or letter in JOINERS else _escaped(letter) for letter in str(text))


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # what `os.fsdecode` makes of a byte that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


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
    """
    plain = shown(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _ACTIVE.sub(r"\\\1", plain)


def say(*texts: object, error: bool = False, end: str = "\n") -> None:
    """Print, and at once: whatever tlkit prints comes this way, so that no name can steer a terminal.

    Args:
        texts: What to print, with blanks between.
        error: To stderr, where it does not mix with what a command gives.
        end: What follows.
    """
    stream = sys.stderr if error else sys.stdout
    text = lines(" ".join(map(str, texts)))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), end=end, file=stream, flush=True)
