"""Progress of long work: its rate and the time left, on stderr, so that the output of a command can be piped."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tlkit import display

CLEAR = "\r\033[K"  # clears the terminal's line
FIRST, NEXT, LIVE = 2.0, 10.0, 0.5  # seconds: before the first line, between lines, between updates on a terminal


class Progress:
    """Prints the progress of work that takes more than two seconds: on a terminal in one line, else in a few.

    Args:
        what: Name of the work.
        total: Number of items.
        unit: Name of the items.

    Attributes:
        note: What else each line says.

    >>> with Progress("looking", 2, "sounds") as progress:
    ...     progress.advance(2)
    >>> progress.done
    2
    """

    def __init__(self, what: str, total: int, unit: str = "photos"):
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self.note = ""
        self.live = sys.stderr.isatty()
        self.began = self.printed = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def advance(self, count: int = 1) -> None:
        """Add items that are done."""
        self.done += count
        now = time.monotonic()
        wait = FIRST if self.printed == self.began else LIVE if self.live else NEXT
        if now - self.printed > wait and 0 < self.done < self.total:
            self.printed = now
            left = (now - self.began) / self.done * (self.total - self.done)
            self._print(f"{self.done:,} of {self.total:,} {self.unit}, {self._rate()}, {duration(left)} left")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.printed != self.began:
            spent = duration(time.monotonic() - self.began)
            self._print(f"{self.done:,} of {self.total:,} {self.unit} in {spent}, {self._rate()}", end="\n")

    def _rate(self) -> str:
        rate = self.done / max(time.monotonic() - self.began, 1e-9)
        return f"{rate:,.0f} a second" if rate >= 10 else f"{rate:.1f} a second"

    def _print(self, text: str, end: str = "") -> None:
        text += f"; {self.note}" if self.note else ""
        before, after = (CLEAR, end) if self.live else ("", "\n")
        sys.stderr.write(f"{before}{display.lines(f'{self.what}: {text}')}{after}")
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """Write a number of seconds for a person.

    >>> duration(0.4), duration(75), duration(7320)
    ('0.4 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
