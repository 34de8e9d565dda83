"""The photos in the body of a request: an image, an upload of a form, or JSON with base64."""

from __future__ import annotations

import re
from typing import NamedTuple

from tlkit import untrusted
from tlkit.display import cut, shown
from tlkit.serving.cells import decode_base64

HEAD = 2**13  # maximum bytes of the headers of a part of a form
FIELDS = 16  # parts of a form that may be something else than photos
ACCEPTED = "image/jpeg, image/png or another image/ type, multipart/form-data, or application/json"


class Refused(Exception):
    """A request that is not answered.

    Args:
        status: The HTTP status.
        message: Why.
        close: Whether the connection is closed, because the rest of the request is not read.
    """

    def __init__(self, status: int, message: str, close: bool = False) -> None:
        super().__init__(message)
        self.status, self.close = status, close


class Sent(NamedTuple):
    """A photo as it was sent.

    Args:
        name: Of its file; empty where a request has no names.
        content: Of the file.
        problem: Why there is none.
    """

    name: str
    content: bytes = b""
    problem: str = ""


def check_type(content_type: str) -> str:
    """Return the kind of a body, `image`, `form` or `json`, before it is read.

    Raises:
        Refused: it is none of these.

    >>> check_type("image/jpeg"), check_type("application/json; charset=utf-8")
    ('image', 'json')
    """
    name = content_type.partition(";")[0].strip().lower()
    if name.startswith("image/") or name == "application/octet-stream":
        return "image"
    if name == "multipart/form-data":
        return "form"
    if name == "application/json":
        return "json"
    received = f"Content-Type is {shown(cut(repr(name)))}" if name else "there is no Content-Type"
    raise Refused(415, f"{received}; send {ACCEPTED}")


def photos_of(content_type: str, body: bytes, most: int) -> list[Sent]:
    """Take the photos out of a body.

    Args:
        content_type: The header.
        body: Whole, its size being checked.
        most: Maximum number of photos.

    Raises:
        Refused: it cannot be read, or there are no photos, or too many.

    >>> photos_of("application/json", b'{"images": ["UE5H", 3]}', 2)
    [Sent(name='', content=b'PNG', problem=''), Sent(name='', content=b'', problem='not a text in base64')]
    """
    kind = check_type(content_type)
    sent = [Sent("", body)] if kind == "image" else (_form if kind == "form" else _json)(content_type, body, most)
    if not sent:
        raise Refused(400, 'there are no photos: a form needs files, and JSON {"image": "base64"} or {"images": [...]}')
    if len(sent) > most:
        raise Refused(413, f"there are {len(sent):,} photos; send at most {most:,} in a request")
    return sent


def _json(content_type: str, body: bytes, most: int) -> list[Sent]:
    try:
        value = untrusted.parse_json(body, "the body")
    except ValueError as error:  # also where it is not UTF-8
        raise Refused(400, f"the body is not JSON: {cut(shown(error), 200)}") from error
    wanted = 'JSON must be {"image": "base64"} or {"images": ["base64", ...]}'
    if not isinstance(value, dict) or len(value.keys() & {"image", "images"}) != 1:
        raise Refused(400, wanted)
    texts = [value["image"]] if "image" in value else value["images"]
    if not isinstance(texts, list):
        raise Refused(400, wanted)
    return [_decoded(text) for text in texts[: most + 1]] if len(texts) <= most else [Sent("")] * len(texts)


def _decoded(text: object) -> Sent:
    if not isinstance(text, str):
        return Sent("", problem="not a text in base64")
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            return Sent("", problem="a data URI that is not in base64")
    try:
        return Sent("", decode_base64(text))
    except ValueError:
        return Sent("", problem="not base64")


def _form(content_type: str, body: bytes, most: int) -> list[Sent]:
    found = re.search(r'boundary=(?:"([^"]{1,200})"|([^\s";,]{1,200}))', content_type, re.IGNORECASE)
    if not found:
        raise Refused(400, "the Content-Type of the form has no boundary")
    delimiter = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
    _, *parts = (b"\r\n" + body).split(delimiter, most + FIELDS + 1)
    sent: list[Sent] = []
    for part in parts:
        if part.startswith(b"--"):
            return sent
        head, blank, content = part.partition(b"\r\n\r\n")
        if not blank or len(head) > HEAD:
            raise Refused(400, "the form is damaged: a part of it has no headers, or too many")
        name = re.search(rb'filename="((?:[^"\\]|\\.)*)"', head, re.IGNORECASE)
        if name:
            sent.append(Sent(cut(shown(name[1].decode("utf-8", "replace")), 200), content))
    if len(parts) > most + FIELDS:
        raise Refused(413, f"the form has more than {most:,} photos; send fewer in a request")
    raise Refused(400, "the form is cut off: it does not end with its boundary")
