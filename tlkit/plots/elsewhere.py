"""Figures drawn by a process of their own while a command goes on: to import Matplotlib and to draw takes seconds.

Only commands have that process. In a user's program, on one core, or if it dies or does not answer, figures are drawn
here when they are asked for.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pickle
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import IO, Any

from tlkit import cores, startup

SIZE = 8  # bytes of the length that goes before a message
PATIENCE = 60.0  # seconds to wait for a picture
_Call = tuple[str, tuple[Any, ...], dict[str, Any]]  # a function of `tlkit.plots`, and its arguments


class Picture:
    """A figure that is being drawn.

    Args:
        function: Name of a function of `tlkit.plots` that returns a figure.
        args: Its arguments; what cannot be pickled is drawn in this process.
        options: Its named arguments.

    >>> Picture("ranking", ["a", "b"], [0.5, 0.7], [(0.4, 0.6), (0.6, 0.8)], "accuracy").png()[1:4]
    b'PNG'
    """

    def __init__(self, function: str, *args: Any, **options: Any):
        self._call: _Call = function, args, options
        self._artist = begin()
        self._answer = self._artist.send(self._call) if self._artist else None

    def png(self) -> bytes:
        """Return the picture's file, as soon as it is drawn."""
        drawn = self._artist.wait(self._answer) if self._artist and self._answer else b""
        return drawn or _draw(*self._call)


def _draw(function: str, args: tuple[Any, ...], options: dict[str, Any]) -> bytes:
    from tlkit import plots

    stream = io.BytesIO()
    plots.save(getattr(plots, function)(*args, **options), stream)
    return stream.getvalue()


@functools.cache
def begin() -> _Artist | None:
    """Start the process that draws, unless it runs; None where there is none."""
    if startup.COMMAND and cores.cores() > 1:
        with contextlib.suppress(OSError):  # there may be no more processes, or no memory for one
            return _Artist()
    return None


class _Artist:
    """The process that draws: it is sent calls, and answers each with a picture, or with nothing if that failed."""

    def __init__(self) -> None:
        # Nothing that is printed gets between the pictures.
        code = "import os; out = os.dup(1); os.dup2(2, 1); from tlkit.plots import elsewhere; elsewhere._serve(out)"
        # A group of its own: Ctrl-C is for the command. It ends when the command does, however that ends.
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0 if os.name == "posix" else None,
        )
        self.answers: queue.SimpleQueue[Future[bytes]] = queue.SimpleQueue()
        self.calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.lock, self.ended = threading.Lock(), False
        for each in (self._send, self._receive):
            threading.Thread(target=each, daemon=True).start()

    def send(self, call: _Call) -> Future[bytes] | None:
        """Have a figure drawn; None where it cannot be sent."""
        answer: Future[bytes] = Future()
        try:
            content = pickle.dumps(call)
        except Exception:  # a function of the user's
            return None
        with self.lock:
            if self.ended:
                return None
            self.answers.put(answer)
            self.calls.put(content)
        return answer

    def wait(self, answer: Future[bytes]) -> bytes:
        """Return a picture; nothing where there is none."""
        try:
            return answer.result(PATIENCE)
        except TimeoutError:
            self.process.kill()
            return b""

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # it has died: `_receive` sees it too
            while True:
                _write(self.process.stdin, self.calls.get())

    def _receive(self) -> None:
        with contextlib.suppress(OSError, MemoryError, OverflowError):  # something else was written than a picture
            while (content := _read(self.process.stdout)) is not None:
                self.answers.get().set_result(content)
        self.process.kill()
        with self.lock:
            self.ended = True
        while not self.answers.empty():
            self.answers.get().set_result(b"")


def _write(stream: IO[bytes] | None, content: bytes) -> None:
    if stream is not None:
        stream.write(len(content).to_bytes(SIZE, "big") + content)
        stream.flush()


def _read(stream: IO[bytes] | None) -> bytes | None:
    """Read a message; None at the end."""
    if stream is None or len(head := stream.read(SIZE)) < SIZE:
        return None
    content = stream.read(size := int.from_bytes(head, "big"))
    return content if len(content) == size else None


def _warm_up() -> None:
    """Draw a figure: the first takes longer, as Matplotlib is imported, and fonts and formulas of axes are read."""
    from matplotlib.figure import Figure

    from tlkit import plots

    figure = Figure(layout="constrained")
    figure.add_subplot(xscale="log", title="first")
    plots.save(figure, io.BytesIO())


def _serve(descriptor: int) -> None:
    """Draw what is sent, until the command ends."""
    out = os.fdopen(descriptor, "wb")
    calls: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def receive() -> None:  # at once, so that the command does not wait while a figure is drawn
        while (content := _read(sys.stdin.buffer)) is not None:
            calls.put(content)
        calls.put(None)

    threading.Thread(target=receive, daemon=True).start()
    with contextlib.suppress(Exception):
        _warm_up()

    while (content := calls.get()) is not None:
        try:
            picture = _draw(*pickle.loads(content))  # noqa: S301  the command's own, by a pipe that nobody else has
        except Exception:  # drawn again by the command, which says what is wrong
            picture = b""
        try:
            _write(out, picture)
        except OSError:  # the command has ended
            return
