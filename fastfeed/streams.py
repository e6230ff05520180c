"""What a user holds to read a feed: streams to iterate over and the synchronous batch callback.

Each has a cursor and a ledger of its own and takes nothing before it can hand it over, so that a cancelled wait loses
nothing. It refuses to know connections; the feed rings the bell, `Ending` says when it is over.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from fastfeed.errors import ConfigError, GaveUp
from fastfeed.events import Event, EventsLost
from fastfeed.records import PRICE_DTYPE

if TYPE_CHECKING:
    from fastfeed._core import PriceReader, TickReader

Records = npt.NDArray[np.void]
Ledger = dict[str, int]
T = TypeVar("T")
S = TypeVar("S", bound="Stream[Any]")

EVENTS_KEPT = 1024  # per event stream, before the oldest are lost
CALLBACK_ROWS = 1024  # of the buffer a callback is shown, per call


class Bell:
    """Wakes everybody who waits, once."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}

    def ring(self) -> None:
        """Wake everybody who waits now."""
        waiting = self._waiting
        if waiting:
            self._waiting = {}
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def wait(self, seconds: float | None = None) -> None:
        """Return at the next ring, or after `seconds`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[future] = None
        timer = None if seconds is None else loop.call_later(seconds, resolve, future)
        try:
            await future
        finally:
            self._waiting.pop(future, None)
            if timer is not None:
                timer.cancel()


def resolve(future: asyncio.Future[None]) -> None:
    """Let whoever awaits it go on; once is enough."""
    if not future.done():
        future.set_result(None)


class Ending:
    """Whether the feed is over, and why."""

    def __init__(self) -> None:
        self.reached = False
        self.failure: GaveUp | None = None
        self.bell = Bell()

    def reach(self, failure: GaveUp | None = None) -> None:
        """Everything that will ever come has come."""
        if not self.reached:
            self.reached = True
            self.failure = failure
            self.bell.ring()

    def check(self) -> None:
        """Raise GaveUp if the feed failed."""
        if self.failure is not None:
            # A new one each time: many may raise it, and tracebacks pile up on an exception.
            raise GaveUp(self.failure.reason, self.failure.attempts) from self.failure.__cause__


class Stream(Generic[T]):
    """The base of `feed.batches()`, `feed.ticks()` and `feed.events()`: `async for`, `async with`, `aclose()`.

    What is pending when the feed closes is still delivered; then the iteration ends, or raises GaveUp if the feed
    failed. One task at a time may iterate over a stream; take several streams for several tasks.
    """

    def __init__(self, name: str, bell: Bell, ending: Ending, release: Callable[[], object]) -> None:
        self.name = name
        self._bell = bell
        self._ending = ending
        self._closed = False
        self._final: Ledger = {}  # the ledger when closed
        self._release = weakref.finalize(self, release)
        self._release.atexit = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while True:
            try:
                item, seconds = self.step()
            except StopIteration:
                raise StopAsyncIteration from None
            if item is not None:
                return item
            await (self._bell.wait() if seconds is None else self._ending.bell.wait(seconds))

    def step(self) -> tuple[T | None, float | None]:
        """The next item; or None, and for how many seconds one is held back, None being until the bell rings.

        Raises StopIteration when none will come, or GaveUp.
        """
        over = self._ending.reached  # before looking: what came last may come from another thread just now
        if not self._closed:
            delay = self._hold()
            if delay > 0 and not over:
                return None, delay
            item = self._take()
            if item is not None or not over:
                return item, None
            self._ending.check()
        raise StopIteration

    async def aclose(self) -> None:
        """Stop reading: the cursor and its place in `feed.stats()` are gone. Whoever waits on the stream is let go."""
        self.close()

    def close(self) -> None:
        """What `aclose` does."""
        if not self._closed:
            self._final = self._ledger()
            self._closed = True
            self._release()
            self._bell.ring()

    @property
    def closed(self) -> bool:
        """`aclose()` was called."""
        return self._closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}{' closed' if self._closed else ''}>"

    def ledger(self) -> Ledger:
        """received == delivered + conflated + dropped + pending, from when the stream was made until it was closed."""
        return self._final if self._closed else self._ledger()

    @property
    def lost(self) -> int:
        """How much this consumer will never see: rows older than `max_age`, or what a slow reader was too late for."""
        return self.ledger()["dropped"]

    def _ledger(self) -> Ledger:
        raise NotImplementedError

    def _hold(self) -> float:
        """Seconds before the next item may be handed over."""
        return 0.0

    def _take(self) -> T | None:
        """The next item, or None if there is nothing yet."""
        raise NotImplementedError


class Batches(Stream[Records]):
    """Conflated batches: the newest row of each symbol that changed, as an owned array of PRICE_DTYPE."""

    def __init__(self, name: str, bell: Bell, ending: Ending, reader: PriceReader, window: float) -> None:
        super().__init__(name, bell, ending, reader.close)
        self._reader = reader
        self._window = window  # seconds
        self._next_at = 0.0  # monotonic seconds

    def _hold(self) -> float:
        if self._window == 0 or not self._reader.ready:
            return 0.0
        return self._next_at - time.monotonic()

    def _take(self) -> Records | None:
        if not self._reader.ready:
            return None
        batch = self._reader.read()
        if len(batch) == 0:  # all of it was older than max_age
            return None
        if self._window:
            self._next_at = time.monotonic() + self._window
        return batch

    def _ledger(self) -> Ledger:
        return self._reader.ledger()


class Ticks(Stream[Records]):
    """Every tick in order, as owned arrays of TICK_DTYPE."""

    def __init__(self, name: str, bell: Bell, ending: Ending, reader: TickReader) -> None:
        super().__init__(name, bell, ending, reader.close)
        self._reader = reader

    def _take(self) -> Records | None:
        ticks = self._reader.read() if self._reader.ready else None
        return None if ticks is None or len(ticks) == 0 else ticks

    def _ledger(self) -> Ledger:
        return self._reader.ledger()


class Events(Stream[Event]):
    """Everything worth telling, in order. Bounded: what is read too slowly becomes one EventsLost."""

    def __init__(self, name: str, ending: Ending) -> None:
        self._kept: deque[Event] = deque()
        super().__init__(name, Bell(), ending, self._kept.clear)
        self._received = self._delivered = self._lost = 0
        self._untold = 0  # lost, and no EventsLost delivered yet

    def push(self, event: Event) -> None:
        """Keep `event` for the reader."""
        self._received += 1
        self._kept.append(event)
        if len(self._kept) > EVENTS_KEPT:
            self._kept.popleft()
            self._lost += 1
            self._untold += 1
        self._bell.ring()

    def end(self) -> None:
        """Let the reader notice that the feed is over."""
        self._bell.ring()

    def _take(self) -> Event | None:
        if self._untold:
            lost, self._untold = self._untold, 0
            return EventsLost(lost)
        if not self._kept:
            return None
        self._delivered += 1
        return self._kept.popleft()

    def _ledger(self) -> Ledger:
        return {
            "received": self._received,
            "delivered": self._delivered,
            "conflated": 0,
            "dropped": self._lost,
            "pending": len(self._kept),
        }


class BatchCallback:
    """What `feed.on_batch` returns: the callback's name, ledger and `cancel()`."""

    def __init__(
        self,
        name: str,
        callback: Callable[[Records], Any],
        reader: PriceReader,
        told: Callable[[BatchCallback, Exception], None],
    ) -> None:
        self.name = name
        self.failed = 0  # calls that raised
        self.cancelled = False
        self._final: Ledger = {}
        self._callback = callback
        self._reader = reader
        self._told = told
        self._buffer: Records = np.zeros(CALLBACK_ROWS, PRICE_DTYPE)
        self._views: dict[int, Records] = {}  # of the buffer's beginning, by length: made once, shown again

    def cancel(self) -> None:
        """Never call the callback again. May be called from inside it."""
        if not self.cancelled:
            self._final = self._reader.ledger()
            self.cancelled = True
            self._reader.close()

    def run(self) -> None:
        """Show the callback what changed. An exception of the callback ends here."""
        while not self.cancelled:
            rows = self._reader.drain(self._buffer)
            if rows == 0:
                return
            view = self._views.get(rows)
            if view is None:
                view = self._views[rows] = self._buffer[:rows]
            try:
                self._callback(view)
            except Exception as error:
                self.failed += 1
                self._told(self, error)
            if rows < CALLBACK_ROWS:
                return

    def ledger(self) -> Ledger:
        """received == delivered + conflated + dropped + pending, from when it was registered until it was cancelled."""
        return self._final if self.cancelled else self._reader.ledger()

    def __repr__(self) -> str:
        return f"<BatchCallback {self.name}{' cancelled' if self.cancelled else ''}>"


class Readers:
    """Everybody who reads a feed, each under a name of its own, and the one bell that wakes them.

    `now` gives monotonic seconds; `failed` is told of a callback that raised. `also` is called whenever one is woken.
    """

    def __init__(self, now: Callable[[], float], failed: Callable[[BatchCallback, Exception], None]) -> None:
        self.bell = Bell()  # rung at the end of each socket read that made ticks
        self.ending = Ending()
        self.also: Callable[[], object] = _nothing
        self.slowest = (0.0, "")  # the longest run of a callback since somebody set it back: seconds, name
        self._now = now
        self._failed = failed
        self._callbacks: list[BatchCallback] = []
        self._streams: weakref.WeakValueDictionary[str, Stream[Any]] = weakref.WeakValueDictionary()
        self._names_made = 0

    def __iter__(self) -> Iterator[Stream[Any] | BatchCallback]:
        """All but the streams nobody holds any more and the closed ones."""
        yield from [stream for stream in list(self._streams.values()) if not stream.closed]
        yield from [callback for callback in self._callbacks if not callback.cancelled]

    def named(self, kind: str, name: str | None) -> str:
        """A name for a new reader. Raises ConfigError where `name` is taken."""
        self._callbacks = [callback for callback in self._callbacks if not callback.cancelled]
        taken = {reader.name for reader in self}
        if name is None:
            self._names_made += 1
            return f"{kind}-{self._names_made}"
        if name in taken:
            raise ConfigError(f"name={name!r} is taken by another consumer of this feed: {', '.join(sorted(taken))}")
        return name

    def keep(self, stream: S) -> S:
        """Wake it and count it as long as somebody holds it."""
        self._streams[stream.name] = stream
        return stream

    def callback(self, callback: Callable[[Records], Any], reader: PriceReader, name: str | None) -> BatchCallback:
        """Call it at the end of each socket read that made ticks."""
        handle = BatchCallback(self.named("on_batch", name), callback, reader, self._failed)
        self._callbacks.append(handle)
        return handle

    def show(self) -> None:
        """There are ticks: run the callbacks, then wake whoever waits."""
        if self._callbacks:
            started = self._now()
            for callback in self._callbacks:
                callback.run()
                ended = self._now()
                self.slowest = max(self.slowest, (ended - started, callback.name))
                started = ended
        self.ring()

    def ring(self) -> None:
        """Wake whoever waits."""
        self.bell.ring()
        self.also()

    def tell(self, event: Event) -> None:
        """An event for all who read events."""
        for stream in self:
            if isinstance(stream, Events):
                stream.push(event)
        self.also()

    def end(self, failure: GaveUp | None) -> None:
        """Everything that will ever come has come."""
        self.ending.reach(failure)
        for stream in self:
            if isinstance(stream, Events):
                stream.end()
        self.ring()


def _nothing() -> None:
    pass
