"""What the commands show: a table redrawn in place on a terminal, plain lines everywhere else.

The only module that knows rich; it is not needed, nor imported, where the output is no terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.live import Live

REDRAWN = 4.0  # times a second on a terminal
LINE_SECONDS = 1.0  # between plain lines


class Screen:
    """`with Screen() as screen: screen.draw(...); screen.say(...)`; `live=None` looks whether stdout is a terminal."""

    def __init__(self, live: bool | None = None) -> None:
        self._wants_live = sys.stdout.isatty() if live is None else live
        self._live: Live | None = None
        self._next_line = 0.0

    def __enter__(self) -> Screen:
        if self._wants_live:
            from rich.live import Live

            self._live = Live(refresh_per_second=REDRAWN, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the table as it is; what is said from now on comes below it."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def draw(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], line: str = "") -> None:
        """The present state: as a table under `title`, or where there is no terminal `line` (else the title), once a
        second."""
        if self._live is not None:
            from rich.console import Group
            from rich.markup import escape
            from rich.table import Table
            from rich.text import Text

            table = Table()
            for place, column in enumerate(columns):
                table.add_column(column, justify="right" if place else "left", no_wrap=True)
            for row in rows:
                table.add_row(*map(escape, row))
            self._live.update(Group(Text(title), table))
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            print(line or title, flush=True)

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False)
        else:
            print(line, flush=True)
