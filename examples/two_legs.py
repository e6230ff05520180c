"""Two connections for everything: one is cut, prices stay live, and no trade is missing."""

import asyncio

import fastfeed
from fastfeed.events import RedundancyLost, RedundancyRegained
from fastfeed.lab import Venue


async def main() -> None:
    async with (
        Venue("binance-usdm", symbols=["BTCUSDT"], rate=1_000) as venue,
        fastfeed.Feed("binance-usdm", ["BTCUSDT"], channels=["trade"], url=venue.url, redundancy=2) as feed,
    ):
        await feed.wait_live(timeout=5.0)
        async with feed.batches() as batches:
            async for _ in batches:  # one leg is enough to be live: wait until both have delivered
                if all(leg["wins"] + leg["seconds"] for leg in feed.stats()["legs"]):
                    break
        async with feed.events() as events:
            venue.cuts(connection=1)
            async for event in events:
                if isinstance(event, RedundancyLost):
                    print("one leg is lost, fresh:", feed.prices.is_fresh("BTCUSDT", max_age=1.0))
                if isinstance(event, RedundancyRegained):
                    print("both deliver again, gaps:", len(feed.gaps()))
                    break


asyncio.run(main())
