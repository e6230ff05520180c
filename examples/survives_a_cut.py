"""A connection is cut; the feed redials, asks for everything again and says how long it took."""

import asyncio

import fastfeed
from fastfeed.events import Restored
from fastfeed.lab import Venue


async def main() -> None:
    async with (
        Venue("binance-usdm", symbols=["BTCUSDT", "ETHUSDT"], rate=1_000) as venue,
        fastfeed.Feed("binance-usdm", ["BTCUSDT", "ETHUSDT"], channels=["quote"], url=venue.url) as feed,
    ):
        await feed.wait_live(timeout=5.0)
        async with feed.events() as events:
            venue.cuts()
            async for event in events:
                print(type(event).__name__)
                if isinstance(event, Restored):
                    print(f"back after {event.duration:.2f} s, still missing: {len(event.missing)}")
                    break


asyncio.run(main())
