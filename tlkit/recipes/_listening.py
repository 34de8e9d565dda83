"""The socket that a server listens on, and uvicorn with limits that it lacks."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tlkit.errors import Unavailable

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

CONNECTIONS = 512  # that are open at a time; a further one gets status 503
HEAD_BYTES = 2**14  # maximum size of the headers of a request
HEAD_SECONDS = 10.0  # in which they must have come
IDLE_SECONDS = 5  # for which a connection stays open without a request
END_SECONDS = 10  # for which requests that are being answered may go on when the server ends
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@contextlib.contextmanager
def listener(host: str, port: int) -> Iterator[socket.socket]:
    """Listen, before anything is loaded: a port that is in use is said at once.

    Raises:
        Unavailable: the port is in use, or the address cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.create_server(address, family=family, backlog=CONNECTIONS)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise Unavailable(f"port {port} is in use: give another, such as --port {port % 65535 + 1}") from error
        if number == errno.EACCES:
            raise Unavailable(
                f"port {port} is not allowed to this user: give one from 1024, such as --port 8000"
            ) from error
        reason = getattr(error, "strerror", None) or error
        raise Unavailable(f"cannot listen on {host!r}, port {port}: {reason}") from error
    with bound:
        yield bound


def address(bound: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine can connect."""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def server(app: FastAPI) -> uvicorn.Server:
    """Make the server of an app, which `run(sockets=[...])` starts."""
    import uvicorn

    settings = uvicorn.Config(
        app,
        http=_protocol(),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=END_SECONDS,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # each request that is not HTTP is a warning
    return uvicorn.Server(settings)


def _protocol() -> type[Any]:
    """Make uvicorn's protocol with a limit of connections, and of the time for the headers of a request."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        patience: Any = None  # ends the connection

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # asyncio does this only where a socket names its protocol; each answer on a kept connection took 40 ms.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if len(self.connections) > CONNECTIONS:
                transport.write(BUSY)
                transport.close()
            else:
                self.watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self.trust()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:  # the app has limits of its own
                self.trust()
            elif self.patience is None:  # the beginning of a request, or what comes after its answer
                self.watch()

        def watch(self) -> None:
            self.patience = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

        def trust(self) -> None:
            if self.patience is not None:
                self.patience.cancel()
                self.patience = None

    return Protocol
