"""The HTTP app: what it answers, and what it refuses before that costs anything."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import importlib.resources
import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

import tlkit
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.serving.answers import Answer, rounded
from tlkit.serving.waiting import Busy
from tlkit.serving.web import schema
from tlkit.serving.web.batching import Batcher, CannotPredict
from tlkit.serving.web.bodies import Refused, Sent, check_type, photos_of

BODIES = 8  # requests of the maximum size that are in memory at a time
EXPLAINED = 8  # photos of a request that get heatmaps
DRAIN_SECONDS = 2  # for which a body that is too large is read and thrown away, so that its sender sees the answer
GONE = 499  # the status of a client that has gone, in the counters
RETRY_AFTER = 60  # maximum seconds that a client is asked to wait
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Limits(NamedTuple):
    """What a request may cost.

    Args:
        size: Maximum bytes of a body.
        photos: Maximum number of photos in a request.
        seconds: In which a body must have come, and in which it must then be answered.
    """

    size: int
    photos: int
    seconds: float


class _Gone(Exception):
    """The client has gone."""


class _Room:
    """The bytes of all bodies that are in memory."""

    def __init__(self, size: int) -> None:
        self.free = BODIES * size

    def take(self, count: int) -> None:
        if count > self.free:
            raise Refused(503, "the server has no memory for more requests at the moment: try again later")
        self.free -= count


def make(batcher: Batcher, limits: Limits) -> FastAPI:
    """Make the app.

    Args:
        batcher: Which answers photos.
        limits: What a request may cost.
    """
    about = "Send photos to /predict; their labels come back."
    app = FastAPI(title="tlkit", version=tlkit.__version__, description=about, docs_url=None, redoc_url=None)
    room = _Room(limits.size)
    counters = batcher.counters

    @app.post("/predict", summary="Predict the labels of photos.", openapi_extra=schema.PREDICT, tags=["predict"])
    async def predict(request: Request) -> Response:
        began, status = time.monotonic(), GONE
        try:
            response = await _predict(request, batcher, limits, room)
            status = response.status_code
        except _Gone:
            response = Response(status_code=GONE)
        except Refused as error:
            status, headers = error.status, {"Connection": "close"} if error.close else {}
            if status == 503:
                headers["Retry-After"] = str(min(RETRY_AFTER, max(1, math.ceil(counters.seconds.mean))))
            response = JSONResponse({"error": str(error)}, status, headers=headers)
        finally:
            counters.add_request(status, time.monotonic() - began)
        return response

    @app.get("/", summary="A page to try the model on.", include_in_schema=False)
    async def page() -> Response:
        served = batcher.served
        text = importlib.resources.files("tlkit.serving.web").joinpath("page.html").read_text(encoding="utf-8")
        version = f", version {served.version}" if served.version else ""
        names = {"{{model}}": html.escape(served.name), "{{version}}": html.escape(version)}
        names["{{why}}"] = "hidden" if served.explainer is None else ""
        return _html(re.sub(r"\{\{\w+\}\}", lambda found: names.get(found[0], found[0]), text))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _html(schema.page(app.openapi()))

    @app.get("/healthz", summary="Whether the server answers, and which model it has.", tags=["operation"])
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "model": batcher.served.name, "version": batcher.served.version}

    @app.get("/metrics", summary="Counters in Prometheus' text format.", tags=["operation"])
    async def metrics() -> Response:
        served = batcher.served
        text = counters.text(batcher.waiting, {"model": served.name, "version": served.version})
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def refused(request: Request, error: Any) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "the server failed; its log says why"}, 500)

    app.add_middleware(_WithHeaders)
    return app


class _WithHeaders:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def sending(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        await self.app(scope, receive, sending)


async def _predict(request: Request, batcher: Batcher, limits: Limits, room: _Room) -> Response:
    """Read a request and answer its photos."""
    body = bytearray()
    try:
        await _read(request, body, batcher, limits, room)
        content_type = request.headers["content-type"]
        sent = await asyncio.to_thread(photos_of, content_type, bytes(body), limits.photos)
        if _explains(request) and len(sent) > EXPLAINED:
            raise Refused(413, f"there are {len(sent):,} photos; send at most {EXPLAINED} in a request with explain")
        return await _answered(request, sent, batcher, limits)
    finally:
        room.free += len(body)


async def _read(request: Request, body: bytearray, batcher: Batcher, limits: Limits, room: _Room) -> None:
    """Read the body of a request, which is refused as soon as there is a reason."""
    more = True
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isascii() and announced.isdigit() and len(announced) < 20 else 0
    try:
        check_type(request.headers.get("content-type", ""))
        if _explains(request) and batcher.served.explainer is None:
            raise Refused(400, "this model has no heatmaps, as its head is not linear: leave explain out")
        if batcher.waiting >= batcher.most:
            raise Refused(503, f"{batcher.waiting:,} photos are waiting for their answers: try again later")
        async with asyncio.timeout(limits.seconds):
            while more:
                if max(size, len(body)) > limits.size:
                    most = f"{limits.size / 2**20:g} MiB"
                    raise Refused(413, f"the body has more than {most}: send fewer or smaller photos in a request")
                part, more = await _part(request)
                room.take(len(part))
                body += part
    except TimeoutError:
        raise Refused(408, f"the body did not come within {limits.seconds:g} s", close=True) from None
    except Refused as error:
        if more:
            error.close = not await _drain(request)
        raise


def _explains(request: Request) -> bool:
    """Whether a request asks for heatmaps."""
    words = {"true": True, "1": True, "false": False, "0": False}
    try:
        return words[request.query_params.get("explain", "false").lower()]
    except KeyError:
        raise Refused(400, "explain is true or false") from None


async def _part(request: Request) -> tuple[bytes, bool]:
    """The next part of a body, and whether there are more."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise _Gone
    return message.get("body", b""), message.get("more_body", False)


async def _drain(request: Request) -> bool:
    """Throw the rest of a body away, as its sender may read an answer only then; return whether all of it came."""
    if "expect" in request.headers:  # the client waits for a word before it sends the body
        return False
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while (await _part(request))[1]:
                pass
    except TimeoutError:
        return False
    return True


async def _answered(request: Request, sent: list[Sent], batcher: Batcher, limits: Limits) -> Response:
    """Wait for the answers, but not longer than the client does."""
    try:
        contents = [photo.content for photo in sent if not photo.problem]
        futures = batcher.submit(contents, _explains(request))
    except Busy as error:
        raise Refused(503, str(error)) from error
    answers = asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
    gone = asyncio.create_task(_gone(request))
    both: set[asyncio.Future[Any]] = {answers, gone}
    try:
        done, _ = await asyncio.wait(both, timeout=limits.seconds, return_when=asyncio.FIRST_COMPLETED)
        if answers in done:
            return _response(sent, answers.result(), batcher)
        if gone in done:
            raise _Gone
        raise Refused(503, f"the photos were not answered within {limits.seconds:g} s: try again later")
    finally:
        gone.cancel()
        for future in futures:
            future.cancel()


async def _gone(request: Request) -> None:
    """Return when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _response(sent: list[Sent], answers: list[Answer | BaseException], batcher: Batcher) -> Response:
    rest, entries, causes = iter(answers), [], []
    for photo in sent:
        answer = InvalidInput(photo.problem) if photo.problem else next(rest)
        entry: dict[str, Any] = {"name": photo.name} if photo.name else {}
        if isinstance(answer, Answer):
            top = [{"label": label, "probability": rounded(share)} for label, share in answer.top]
            entry |= {"label": answer.label, "probability": rounded(answer.probability), "top": top}
            more = {"label_set": answer.label_set, "novel": answer.novel, "heatmap": answer.heatmap}
            entry |= {name: value for name, value in more.items() if value is not None}
        else:
            causes.append(answer)
            entry |= {"error": str(answer).removeprefix("photo: ")}
        entries.append(entry)
    batcher.counters.add_photos(len(sent) - len(causes), len(causes))
    for error in {str(cause) for cause in causes if isinstance(cause, CannotPredict)}:
        say(f"serve: the model cannot predict: {error}", error=True)
    content: dict[str, Any] = {"predictions": entries}
    if len(causes) < len(sent):
        return JSONResponse(content)
    statuses = {_status(cause) for cause in causes}
    return JSONResponse({"error": entries[0]["error"], **content}, max(statuses))


def _status(cause: BaseException) -> int:
    from tlkit.data.images import TooLarge

    if not isinstance(cause, InvalidInput):
        return 500
    return 413 if isinstance(cause.__cause__, TooLarge) else 400


def _html(text: str) -> Response:
    """A page whose own scripts and styles run, and nothing else."""

    def hashes(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
        return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"

    policy = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src blob: data:; "
        "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Permissions-Policy": "camera=(self)"}
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)
