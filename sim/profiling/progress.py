"""A line on the terminal that says how far the run is."""

from __future__ import annotations

import time
from typing import TextIO

_WIDTH = 24


class Progress:
    """A bar with the time left, rewritten in place on a terminal; a line now and then where there is none.

    Args:
        total: cases to come.
        stream: where it is written.
        every_s: seconds between lines where `stream` is no terminal.
    """

    def __init__(self, total: int, stream: TextIO, every_s: float = 15.0) -> None:
        self._total, self._stream = total, stream
        self._start = self._last = time.monotonic()
        self._terminal, self._every_s = stream.isatty(), every_s

    def show(self, done: int, label: str) -> None:
        """`done` cases are through, `label` is next."""
        now = time.monotonic()
        if not self._terminal and now - self._last < self._every_s and done:
            return
        self._last = now
        left = (now - self._start) / done * (self._total - done) if done else 0.0
        filled = _WIDTH * done // max(1, self._total)
        bar = "#" * filled + "." * (_WIDTH - filled)
        text = f"[{bar}] {done}/{self._total}, {left / 60:.1f} min left: {label}"
        self._stream.write(f"\r\x1b[2K{text[:160]}" if self._terminal else f"{text[:160]}\n")
        self._stream.flush()

    def note(self, text: str) -> None:
        """A line that stays."""
        self._stream.write(f"\r\x1b[2K{text}\n" if self._terminal else f"{text}\n")

    def close(self) -> None:
        """Leave the line of the bar."""
        if self._terminal:
            self._stream.write("\n")
