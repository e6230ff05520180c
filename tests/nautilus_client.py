"""nautilus_trader's own Binance client against a venue, run by an interpreter of its own; it knows no fastfeed.

`nautilus_client.py URL STREAM...` subscribes one by one, says "ready" once connected, and prints each tick that it
makes as a JSON line until its stdin ends. Prices are printed as nautilus_trader spells them.
"""

import asyncio
import json
import sys
from typing import Any

import msgspec
from nautilus_trader.adapters.binance.common.schemas.market import BinanceAggregatedTradeMsg, BinanceQuoteMsg
from nautilus_trader.adapters.binance.websocket.client import BinanceWebSocketClient
from nautilus_trader.common.component import LiveClock
from nautilus_trader.model.identifiers import InstrumentId


def tell(raw: bytes) -> None:
    stream = msgspec.json.decode(raw).get("stream", "")
    if stream.endswith("@bookTicker"):
        data = msgspec.json.decode(raw, type=BinanceQuoteMsg).data
        tick = data.parse_to_quote_tick(InstrumentId.from_str(f"{data.s}.BINANCE"), ts_init=1)
        prices = {"bid": tick.bid_price, "bid_size": tick.bid_size, "ask": tick.ask_price, "ask_size": tick.ask_size}
        print(json.dumps({"symbol": data.s, **{name: str(value) for name, value in prices.items()}}), flush=True)
    elif stream.endswith("@aggTrade"):
        data = msgspec.json.decode(raw, type=BinanceAggregatedTradeMsg).data
        fill = data.parse_to_trade_tick(InstrumentId.from_str(f"{data.s}.BINANCE"))
        print(json.dumps({"symbol": data.s, "last": str(fill.price), "last_size": str(fill.size)}), flush=True)


async def main(url: str, *streams: str) -> None:
    loop = asyncio.get_running_loop()
    client: Any = BinanceWebSocketClient(LiveClock(), url, tell, None, loop)
    for stream in streams:
        symbol, _, kind = stream.partition("@")
        if kind == "bookTicker":
            await client.subscribe_book_ticker(symbol)
        else:
            await client.subscribe_agg_trades(symbol)
    print(json.dumps("ready"), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    await client.disconnect()


asyncio.run(main(*sys.argv[1:]))
