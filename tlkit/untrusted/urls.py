"""URLs of data: which are read, and that none has a secret in it, as the settings of a run are logged."""

from __future__ import annotations

import os

from tlkit.errors import InvalidInput, without_password

PROTOCOLS = ("file", "memory", "s3", "gs", "az", "abfs", "http", "https")
"""Of URLs that are read, by fsspec. Some of its others run programs or open further URLs."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL.

    >>> is_url("s3://bucket/photos"), is_url("photos/a.png"), is_url("C:/photos")
    (True, False, False)
    """
    return "://" in str(path)


def check_url(url: str, what: str = "data.path") -> None:
    """Refuse a URL that is not read, or that may have a secret in it: a password, or the signature of a signed URL.

    Args:
        url: From the user.
        what: The setting it is from, for the error, which does not repeat what may be secret.

    Raises:
        InvalidInput: it has another protocol, several of them, a user name or password, or a query.

    >>> check_url("s3://bucket/photos")
    >>> check_url("https://host/a.tar?X-Amz-Signature=secret")
    Traceback (most recent call last):
    tlkit.errors.InvalidInput: data.path is 'https://host/a.tar?...', whose part from the question mark on ...
    """
    protocol, _, rest = url.partition("://")
    plain = without_password(url.partition("?")[0])
    if protocol not in PROTOCOLS or "::" in url or not rest:
        raise InvalidInput(f"{what} is {plain!r}: URLs begin with {'://, '.join(PROTOCOLS)}://")
    if "@" in rest.partition("/")[0]:
        raise InvalidInput(
            f"{what} is a {protocol}:// URL with a user name or password, which runs would log: give these as the "
            "environment variables of the storage"
        )
    if "?" in url:
        raise InvalidInput(
            f"{what} is {plain + '?...'!r}, whose part from the question mark on runs would log, and it may be a "
            "signature: leave it out, and give keys as the environment variables of the storage"
        )
