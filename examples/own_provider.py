"""An exchange that fastfeed does not know, live: declared in under 40 lines, run as a feed against a server of its own.

The exchange is made up. The server stands in for it and is no part of the declaration; it needs the `http` extra.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import fastfeed
from fastfeed import Message, Provider, Schema
from fastfeed.credentials import Auth
from fastfeed.dialect import Ack, Denial, Dialect, Greeting, PongSaid, Refusal, Reply, Welcome
from fastfeed.events import Restored
from fastfeed.failures import Failure
from fastfeed.heartbeat import Beats
from fastfeed.lab.stage import Desk, Event, Said, Stage
from fastfeed.providers import Channel
from fastfeed.subscriptions import Limits, Render


# The declaration: from here -------------------------------------------------------------------------------------------
def ask(op: str) -> Render:
    return lambda number, topics: json.dumps({"op": op, "id": number, "topics": list(topics)})


def read(payload: bytes) -> tuple[Reply, ...]:
    said = json.loads(payload)
    replies: dict[str, Callable[[], Reply]] = {
        "hello": lambda: Greeting(),
        "welcome": lambda: Welcome(),
        "denied": lambda: Denial(Failure.AUTH, said["why"]),
        "ok": lambda: Ack(said["id"]),
        "error": lambda: Refusal(said["id"], said["why"]),
        "pong": lambda: PongSaid(said["id"], said["time"]),
    }
    return (replies[said["type"]](),) if said["type"] in replies else ()


quote: dict[str, Any] = {"bid": "bid.0", "bid_size": "bid.1", "ask": "ask.0", "ask_size": "ask.1", "seq": "n"}
trade: dict[str, Any] = {"price": "px", "size": "qty", "side": "taker", "seq": "id"}
corner = Provider(
    name="corner",
    url="wss://stream.corner.example",
    channels={"quote": Channel(topic="bbo:{symbol}", path="/v1"), "trade": Channel(topic="fill:{symbol}", path="/v1")},
    schema=Schema(
        Message("quote", match={"type": "bbo"}, symbol="pair", event_time=("at", "ms"), **quote),
        Message("trade", match={"type": "fill"}, symbol="pair", event_time=("at", "ms"), **trade),
        Message("control", has=("type",)),
    ),
    dialect=Dialect(
        subscribe=ask("subscribe"),
        unsubscribe=ask("unsubscribe"),
        read=read,
        ping=lambda number, utc: json.dumps({"op": "ping", "id": number}),
        greets=True,
    ),
    limits=Limits(streams_per_connection=100, streams_per_request=20, messages_per_second=10),
    auth=Auth(env={"api_key": "CORNER_KEY"}, login=lambda keys: (json.dumps({"op": "login", "key": keys["api_key"]}),)),
    beats=Beats(interval=15.0, timeout=5.0),
)
# The declaration: to here ---------------------------------------------------------------------------------------------


NAMES = {"bbo": "quote", "fill": "trade"}


class Server(Desk):
    """The exchange's side, from the same protocol page: greeting, login, answers by number, quotes and trades."""

    kinds = ("quote", "trade")

    def greet(self) -> list[Said]:
        return [json.dumps({"type": "hello"})]

    def hear(self, message: Said) -> list[Said]:
        return [json.dumps(self.answer(json.loads(message)))]

    def answer(self, said: dict[str, Any]) -> dict[str, Any]:
        if said["op"] == "login":
            is_known = said["key"] == self.stage.keys["key"]
            return {"type": "welcome"} if is_known else {"type": "denied", "why": "unknown key"}
        if said["op"] == "ping":
            return {"type": "pong", "id": said["id"], "time": time.time()}
        wanted = [(NAMES[kind], pair) for kind, pair in (topic.split(":") for topic in said["topics"])]
        if any(pair not in self.stage.symbols for _, pair in wanted):
            return {"type": "error", "id": said["id"], "why": "no such pair"}
        for one in wanted:
            if said["op"] == "subscribe":
                self.subscribed[one] = None
            else:
                self.subscribed.pop(one, None)
        return {"type": "ok", "id": said["id"]}

    def render(self, events: Sequence[Event]) -> list[Said]:
        return [json.dumps(self.frame(event)) for event in events]

    def frame(self, event: Event) -> dict[str, Any]:
        common = {"pair": event.symbol, "at": event.utc_ns // 1_000_000}
        if event.kind == "trade":
            side = "sell" if event.sells else "buy"
            return {"type": "fill", **common, "px": event.price, "qty": event.size, "taker": side, "id": event.number}
        bid, ask = [str(event.bid), str(event.bid_size)], [str(event.ask), str(event.ask_size)]
        return {"type": "bbo", **common, "bid": bid, "ask": ask, "n": event.number}


async def main() -> None:
    pairs = ["EUR/USD", "GBP/USD"]
    async with (
        Stage(Server, symbols=pairs, rate=200, keys={"key": "key-of-mine"}) as server,
        fastfeed.Feed(corner, pairs, channels=["quote", "trade"], url=server.url, api_key="key-of-mine") as feed,
    ):
        await feed.wait_live(timeout=5.0)
        row = feed.prices["EUR/USD"]
        said = {(event.number, event.bid, event.ask) for event in server.events if event.kind == "quote"}
        print("the row is what the server said:", (row["quote_seq"], row["bid"], row["ask"]) in said)
        print("may I act on it?", feed.prices.is_fresh("EUR/USD", max_age=0.5))
        stats = feed.stats()
        print({name: stats[name] for name in ("unknown", "malformed", "unreadable", "strays", "gaps")})
        async with feed.events() as events:
            server.cuts()
            async for event in events:
                if isinstance(event, Restored):
                    print("cut and back, still missing:", len(event.missing))
                    break


asyncio.run(main())
