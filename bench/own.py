"""Does an exchange of your own decode as fast as one that comes with fastfeed? The same frames, the same content.

One decoder runs the provider's schema, the other one written by hand here, as a user would from the protocol page. Both
must hold the same prices before anybody is timed. No rival: fastfeed is held against itself.
"""

import frames
import measure

import fastfeed
from fastfeed import Message, Schema
from fastfeed.providers import provider

BUILT_IN = "provider binance-usdm"
OWN = "own declaration"

# By hand, but as large as the built-in: a schema with less to tell apart would prove nothing.
TRADE = {"symbol": "s", "price": "p", "size": "q", "side": "m", "event_time": ("T", "ms")}
SCHEMA = Schema(
    Message(
        "quote",
        match={"e": "bookTicker"},
        symbol="s",
        bid="b",
        bid_size="B",
        ask="a",
        ask_size="A",
        seq="u",
        event_time=("T", "ms"),
    ),
    Message("trade", match={"e": "aggTrade"}, seq="a", **TRADE),
    Message("trade", match={"e": "trade"}, channel="raw_trade", seq="t", **TRADE),
    Message(
        "mark",
        match={"e": "markPriceUpdate"},
        symbol="s",
        price="p",
        index="i",
        funding="r",
        event_time=("E", "ms"),
        null=("",),
    ),
    Message(
        "depth",
        match={"e": "depthUpdate"},
        symbol="s",
        bids="b",
        asks="a",
        first_seq="U",
        seq="u",
        prev_seq="pu",
        event_time=("T", "ms"),
    ),
    Message("control", match={"e": "serverShutdown"}),
    Message("control", has=("result", "id")),
    Message("control", has=("code", "msg")),
    Message("control", has=("error",)),
    envelope="data",
)
SOURCES = {BUILT_IN: provider("binance-usdm"), OWN: SCHEMA}


def decoders(lead: list[bytes]) -> dict[str, fastfeed.Decoder]:
    found = {name: fastfeed.Decoder(source, max_symbols=4096) for name, source in SOURCES.items()}
    for decoder in found.values():
        decoder.decode_many(lead)
    return found


def check(payloads: list[bytes], lead: list[bytes]) -> None:
    built_in = SOURCES[BUILT_IN].schema
    if (SCHEMA.channels, len(SCHEMA.messages)) != (built_in.channels, len(built_in.messages)):
        raise ValueError(f"{OWN} is not as large as {BUILT_IN}")
    rows = []
    for name, decoder in decoders(lead).items():
        assert decoder.decode_many(payloads) == len(payloads), name
        table = decoder.prices
        fields = ("bid", "bid_size", "ask", "ask_size", "quote_seq", "event_ns")
        columns = [table.array[field][: len(table)].tolist() for field in fields]
        rows.append(list(zip(table.symbols, *columns, strict=True)))
    if rows[0] != rows[1]:
        raise ValueError(f"{OWN} does not do the same job as {BUILT_IN}")


def measured(payloads: list[bytes], lead: list[bytes], rounds: int) -> measure.Results:
    """ns a frame, by declaration, one consumer attached."""
    check(payloads, lead)

    def once(name: str) -> float:
        decoder = decoders(lead)[name]
        reader = decoder.prices.reader()
        took = measure.timed(lambda: decoder.decode_many(payloads)) / len(payloads)
        assert len(reader.read()) > 0
        return took

    samples = measure.in_turns(list(SOURCES), rounds, once)
    return {name: measure.summary(values) for name, values in samples.items()}


def run(rounds: int, scale: float) -> dict[str, measure.Results]:
    made, lead = frames.quotes(), frames.lead(70_000)
    count = max(10_000, int(len(made) * scale))
    found = {}
    for what, payloads in {"made": made[:count], "shuffled": frames.shuffled(made[:count])}.items():
        found[f"own, {what}"] = results = measured(payloads, lead, rounds)
        title = f"decode and conflate, {len(payloads):,} {what} frames, by who declared them"
        print(measure.table(title, results, "ns/frame", BUILT_IN), flush=True)
    return found


if __name__ == "__main__":
    run(9, 1.0)
