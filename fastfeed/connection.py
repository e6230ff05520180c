"""One connection's hands: dials, carries out what its session decides, and tells the session what the wire hears.

Nothing is decided here, and nothing runs per tick.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Protocol

from fastfeed import events
from fastfeed._core import Clock, Decoder
from fastfeed._wire import Wire
from fastfeed.endpoint import Endpoint
from fastfeed.errors import ConnectError
from fastfeed.session import Session, State
from fastfeed.signals import (
    Close,
    Closed,
    Control,
    Delivered,
    Dial,
    Emit,
    Forget,
    Input,
    Judge,
    Login,
    Lost,
    Opened,
    Pong,
    Renew,
    Renewed,
    Rotate,
    Send,
    SendAppPing,
    SendPing,
    SetOffset,
    Tick,
    Traffic,
)
from fastfeed.staleness import Standing
from fastfeed.subscriptions import ALL, Stage, Subscription


class Owner(Protocol):
    """What a connection tells the leg it belongs to."""

    def on_ticks(self) -> None:
        """A socket read that made ticks has ended."""

    def on_event(self, event: events.Event) -> None:
        """Something to tell the user."""

    def on_lost(self, subscriptions: Iterable[Subscription]) -> None:
        """Prices of these are frozen until they deliver again."""

    def on_forget(self, subscriptions: Iterable[Subscription]) -> None:
        """These are asked for anew on the same connection."""

    def on_offset(self, seconds: float) -> None:
        """This machine's clock is so far ahead of the provider's."""

    def on_judged(self, subscriptions: Iterable[Subscription], standing: Standing) -> None:
        """What these prices are worth by the session's judgement."""

    def on_delivered(self, subscriptions: Iterable[Subscription]) -> None:
        """These have delivered for the first time on the present connection."""

    def on_rotate(self, reason: str) -> None:
        """The session wants a successor."""

    def on_change(self, connection: Connection) -> None:
        """The session has done something; look at its state."""


class Connection:
    """A session, the wire it speaks through at the moment, and the timer it asked for.

    `source` numbers its ticks. `leg` is set while another connection delivers the same: only what has come by this leg
    is then its own.
    The methods `wire_*` are called by the wire, in the socket read.
    """

    def __init__(
        self,
        owner: Owner,
        session: Session,
        endpoint: Endpoint,
        path: str,
        source: int,
        decoder: Decoder,
        clock: Clock,
        app_ping: Callable[[int, float], str | bytes] | None,
        leg: int | None = None,
    ) -> None:
        self.session = session
        self.source = source
        self.leg = leg
        self.listens_from_ns = 0  # monotonic: what came earlier came by another connection
        self._app_ping = app_ping
        self.path = path
        self._owner = owner
        self._endpoint = endpoint
        self._decoder = decoder
        self._clock = clock
        self._wire: Wire | None = None  # the present one; what any other still says is not listened to
        self._connected = False  # the present wire has completed its handshake
        self._dialling: asyncio.Task[None] | None = None
        self._closing: set[Wire] = set()  # closed by us and not yet gone
        self._timer: asyncio.TimerHandle | None = None
        self._counted = {"bytes": 0, "pings_answered": 0}  # by the wires before the present one
        self._look_at = math.inf  # when to look for first data again
        self._frames_told = 0  # of the present wire
        self._asked_ns: dict[Subscription, int] = {}  # what was asked for anew, and when (monotonic)

    @property
    def gone(self) -> bool:
        """Nothing of it is left on the network."""
        return self._wire is None and self._dialling is None and not self._closing

    def counters(self) -> dict[str, int]:
        """What it has counted over all its wires."""
        wire = self._wire
        return {
            "bytes": self._counted["bytes"] + (0 if wire is None else wire.bytes_received),
            "pings_answered": self._counted["pings_answered"] + (0 if wire is None else wire.pings_answered),
            "dials": self.session.dials,
            "reconnects": self.session.reconnects,
            "unreadable": self.session.unreadable,
            "strays": self.session.strays,
        }

    def handle(self, event: Input) -> None:
        """Give the session what happened and do what it says."""
        now = self._now()
        for action in self.session.handle(event, now):
            match action:
                case Dial():
                    self._wire = Wire(self._decoder, self, source=self.source, max_message=self._endpoint.max_message)
                    self._dialling = asyncio.get_running_loop().create_task(self._dial(self._wire))
                case Send(text):
                    self._send(text)
                case SendPing(payload):
                    if self._wire is not None:
                        self._wire.ping(payload)
                case SendAppPing(number):
                    if self._app_ping is not None:
                        self._send(self._app_ping(number, self._clock.utc_ns() / 1e9))
                case Login():
                    for text in self._endpoint.credentials.login():
                        self._send(text)
                case Renew():
                    self._endpoint.credentials.spoil()
                    self._dialling = asyncio.get_running_loop().create_task(self._renew())
                case Close(code, reason):
                    self._hang_up(code, reason)
                case Lost(subscriptions):
                    self._owner.on_lost(subscriptions)
                case Forget(subscriptions):
                    self._asked_ns.update(dict.fromkeys(subscriptions, self._clock.mono_ns()))
                    self._owner.on_forget(subscriptions)
                case Judge(subscriptions, standing):
                    self._owner.on_judged(subscriptions, standing)
                case SetOffset(seconds):
                    self._owner.on_offset(seconds)
                case Rotate(reason):
                    self._owner.on_rotate(reason)
                case Emit(told):
                    self._owner.on_event(told)
        self._look_at = now if self.session.state is State.OPEN and self.session.book.waits else math.inf
        if self._timer is not None:
            self._timer.cancel()
        deadline = self.session.deadline()
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - now), self.handle, Tick())
        self._owner.on_change(self)

    def _send(self, text: str | bytes) -> None:
        if self._wire is not None:
            self._wire.send(self._endpoint.credentials.stamped(text))

    def find_live(self) -> None:
        """Tell the session which silent subscriptions have delivered since the connection opened."""
        now = self._now()
        if now < self._look_at or self.session.opened_at is None:
            return
        # Often while everything is coming up, ten times a second for what stays silent.
        self._look_at = now + min(0.1, 0.005 + (now - self.session.opened_at) / 20)
        prices = self._decoder.prices
        silent = [record.subscription for record in self.session.book.at(Stage.REQUESTED, Stage.ACKED)]
        arrived = {channel: prices.arrived(channel, leg=self.leg) for channel in {wish.channel for wish in silent}}
        live = []
        for wish in silent:
            since_ns = max(1, self.listens_from_ns, self._asked_ns.get(wish, 0))
            number = prices.id(wish.symbol)
            if wish.symbol == ALL:
                found = bool((arrived[wish.channel] >= since_ns).any())
            else:
                found = number is not None and bool(arrived[wish.channel][number] >= since_ns)
            if found:
                live.append(wish)
        if live:
            self._owner.on_delivered(live)
            self.handle(Delivered(tuple(live)))

    def listens_alone(self) -> None:
        """No other connection delivers the same any more: what comes from now on comes by this one."""
        self.listens_from_ns = self._clock.mono_ns()

    def tell_traffic(self, judged: bool) -> None:
        """Tell the session how many messages have come since the last time; `judged`: few are a wonder."""
        if self._wire is not None and self._connected:
            frames = self._wire.frames_received
            messages, self._frames_told = frames - self._frames_told, frames
            self.handle(Traffic(messages, judged))

    def abort(self) -> None:
        """Let go of whatever is left."""
        if self._timer is not None:
            self._timer.cancel()
        if self._dialling is not None:
            self._dialling.cancel()
        for wire in self._closing:
            wire.abort()

    def wire_connected(self, wire: Wire) -> None:
        if wire is self._wire:
            self._connected = True
            self._frames_told = 0
            self._asked_ns.clear()
            self.listens_alone()
            self.handle(Opened())

    def wire_control(self, wire: Wire, payload: bytes) -> None:
        if wire is self._wire:
            self.handle(Control(self._endpoint.credentials.hide_bytes(payload), self._clock.utc_ns() / 1e9))

    def wire_pong(self, wire: Wire, payload: bytes) -> None:
        if wire is self._wire:
            self.handle(Pong(payload))

    def wire_read(self, wire: Wire, ticked: bool) -> None:
        if ticked:
            self._owner.on_ticks()
            if self._look_at < math.inf:
                self.find_live()

    def wire_closed(self, wire: Wire, code: int, reason: str) -> None:
        if wire in self._closing:
            self._closing.discard(wire)
            self._owner.on_change(self)
        elif wire is self._wire and self._connected:
            self._forget()
            self.handle(Closed(code, self._endpoint.credentials.hide(reason)))

    async def _dial(self, wire: Wire) -> None:
        error: Exception = ConnectionError("the connection was closed during the handshake")
        try:
            await self._endpoint.dial(self.path, wire)
        except Exception as raised:
            error = raised
        finally:
            if self._dialling is asyncio.current_task():
                self._dialling = None
            self._owner.on_change(self)
        if wire is self._wire and not self._connected:
            self._forget()
            self.handle(self._endpoint.explain(error, self._clock.utc_ns() / 1e9))

    async def _renew(self) -> None:
        failed: ConnectError | None = None
        try:
            await self._endpoint.credentials.refresh(self._now())
        except Exception as raised:
            failed = self._endpoint.explain(raised, self._clock.utc_ns() / 1e9).error
        finally:
            if self._dialling is asyncio.current_task():
                self._dialling = None
        self.handle(Renewed(failed))

    def _hang_up(self, code: int, reason: str) -> None:
        wire, connected = self._wire, self._connected
        self._forget()
        if wire is not None and connected:
            self._closing.add(wire)
            if code == 1006:
                wire.abort()
            else:
                wire.close(code, reason)
        elif self._dialling is not None:
            self._dialling.cancel()

    def _forget(self) -> None:
        """The present wire has nothing more to say."""
        if self._wire is not None:
            self._counted["bytes"] += self._wire.bytes_received
            self._counted["pings_answered"] += self._wire.pings_answered
        self._wire = None
        self._connected = False

    def _now(self) -> float:
        return self._clock.mono_ns() / 1e9
