"""Does the cost of a tick stay flat as symbols grow, and does a drain cost only what changed?

Uniform, every symbol ticks equally often and in no order, so that caches help least; Zipf, as markets do. No rival:
fastfeed is held against itself.
"""

import frames
import measure
import numpy as np

import fastfeed

COUNTS = (100, 10_000, 50_000)
CHANGED = 10
PROVIDER = "binance-usdm"


def tick_costs(rounds: int, *, is_zipf: bool) -> measure.Results:
    """ns a tick by number of symbols, one consumer attached; every symbol has ticked before."""
    lead = {count: frames.spread(count, max(count, 10_000)) for count in COUNTS}
    timed = {count: frames.spread(count, passes=2, is_zipf=is_zipf) for count in COUNTS}

    def once(name: str) -> float:
        count = int(name)
        decoder = fastfeed.Decoder(PROVIDER, max_symbols=65_536)
        reader = decoder.prices.reader()
        decoder.decode_many(lead[count])
        took = measure.timed(lambda: decoder.decode_many(timed[count])) / len(timed[count])
        assert len(decoder.prices) == count
        assert len(reader.read()) == count
        return took

    samples = measure.in_turns([str(count) for count in COUNTS], rounds, once)
    return {name: measure.summary(values) for name, values in samples.items()}


def drain_cost(rounds: int) -> measure.Summary:
    """us that `PriceReader.drain` takes for CHANGED rows of the largest table."""
    symbols = COUNTS[-1]
    decoder = fastfeed.Decoder(PROVIDER, max_symbols=65_536)
    decoder.decode_many(frames.spread(symbols, symbols))
    reader = decoder.prices.reader()
    out = np.zeros(1024, fastfeed.PRICE_DTYPE)
    costs = []
    for number in range(rounds * 20):
        reader.read()
        decoder.decode_many(frames.spread(symbols, CHANGED, passes=2 + number))
        assert reader.ready

        def drain() -> None:
            assert reader.drain(out) == CHANGED

        costs.append(measure.timed(drain) / 1e3)
    return measure.summary(costs)


def run(rounds: int, scale: float) -> dict[str, measure.Results]:
    found = {
        "symbols": tick_costs(rounds, is_zipf=False),
        "symbols, Zipf": tick_costs(rounds, is_zipf=True),
        "drain": {f"{CHANGED} of {COUNTS[-1]}": drain_cost(rounds)},
    }
    for title in ("symbols", "symbols, Zipf"):
        print(measure.table(f"a tick by number of {title}", found[title], "ns/tick", str(COUNTS[0])))
    print(measure.table("a drain of changed rows", found["drain"], "us"), flush=True)
    return found


if __name__ == "__main__":
    run(5, 1.0)
