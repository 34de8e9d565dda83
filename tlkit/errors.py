"""Errors that are not bugs: the command line prints them in one line, without a traceback."""

import re
import textwrap

UNREACHABLE = {
    "Connection refused|actively refused": "nothing listens there",
    "Name or service not known|nodename nor servname|name resolution|getaddrinfo failed|NameResolutionError": "no "
    "machine of that name is known",
    "timed out|Timeout": "it did not answer in time",
    "Connection reset|RemoteDisconnected|Connection aborted|Broken pipe": "the connection was closed",
    "Network is unreachable|No route to host": "there is no way to it in the network",
    "CERTIFICATE_VERIFY_FAILED|certificate verify failed": "its certificate is not trusted",
}
"""What HTTP libraries write of a server that cannot be reached, as patterns, and how that is said."""


class InvalidInput(ValueError):
    """The user's input cannot be used; the message says what was received, what is allowed and what to do.

    The command line exits with status 2.
    """


class Undecodable(InvalidInput):
    """A photo, sound or array that cannot be read; the message names it."""


class Unreadable(Undecodable):
    """A file that this process cannot open; another machine may see it."""


class Unavailable(OSError):
    """Something outside the program is missing: a network, a server, room on a disk.

    The command line exits with status 1.
    """


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without passwords; the error's name where the message is empty.

    >>> first_line(ValueError("\\nno photo\\nin the folder")), first_line(KeyError())
    ('no photo', 'KeyError')
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    return without_password(lines[0].strip() if lines else type(error).__name__)


def connection_reason(error: Exception, most: int = 300) -> str:
    """Say why a server cannot be reached, in plain words; of any other error the first line, cut between words.

    >>> connection_reason(OSError("HTTPConnectionPool: Max retries exceeded: [Errno 111] Connection refused"))
    'nothing listens there'
    >>> connection_reason(ValueError("a long message"), 10)
    'a long …'
    """
    text = f"{type(error).__name__} {error}"
    said = next((words for pattern, words in UNREACHABLE.items() if re.search(pattern, text)), None)
    return said or textwrap.shorten(first_line(error), most, placeholder=" …")


def reason(error: OSError) -> str:
    """Say why the system refused, and at which file or folder, if that is known.

    >>> reason(OSError(28, "No space left on device", "mlruns/full.npz")), reason(OSError("it is gone"))
    ('mlruns/full.npz: No space left on device', 'it is gone')
    """
    message = error.strerror or first_line(error)
    return f"{error.filename}: {message}" if error.filename else message


def without_password(text: str) -> str:
    """Remove users, passwords and tokens from the URIs in a text, so that it may be shown.

    >>> without_password("no answer from https://me:secret@mlflow.example.org/team?token=secret&page=1")
    'no answer from https://mlflow.example.org/team?token=...&page=1'
    """
    text = re.sub(r"//(?:[^/\s:@]*:\S*|[^/\s]*)@", "//", text)
    named = "password|passwd|pwd|secret|token|key|sig|credential|access"
    return re.sub(rf"(?i)([?&][^=&\s]*(?:{named})[^=&\s]*=)[^&\s]+", r"\1...", text)
