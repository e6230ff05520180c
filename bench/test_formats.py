"""What does one quote cost in each wire format, the content being equal? And fifty in one array, as stocks come?

Every round begins with a decoder that knows symbols and layouts and has seen no number that comes.
"""

import json

import formats
import frames
import pytest

import fastfeed

COUNT = 20_000
PRIMING = 2_000


def quotes() -> list[dict]:
    return [json.loads(frame) for frame in frames.quotes(COUNT + PRIMING)]


@pytest.mark.parametrize("name", formats.FORMATS)
@pytest.mark.parametrize("batch", [1, 50], ids=["single", "arrays of 50"])
def test_decode_cost(benchmark, name, batch):
    schema, pack = formats.FORMATS[name]
    payloads = [pack(quote) for quote in quotes()]
    if batch > 1:
        if name == "sbe":
            pytest.skip("an SBE frame is one quote")
        payloads = [formats.array(name, payloads[i : i + batch]) for i in range(0, len(payloads), batch)]
    known = PRIMING // batch

    def primed():
        decoder = fastfeed.Decoder(schema)
        decoder.decode_many(payloads[:known])
        return (decoder, payloads[known:]), {}

    benchmark.extra_info["quotes"] = COUNT
    made = benchmark.pedantic(lambda decoder, rest: decoder.decode_many(rest), setup=primed, rounds=15, warmup_rounds=2)
    assert made == COUNT


@pytest.mark.parametrize("batch", [1, 50], ids=["50 frames", "one array"])
def test_stock_quotes_one_by_one_and_in_an_array(benchmark, batch):
    made = formats.stock_quotes(COUNT + PRIMING)
    payloads = [formats.array("json", made[i : i + batch]) for i in range(0, len(made), batch)]
    known = PRIMING // batch

    def primed():
        decoder = fastfeed.Decoder("polygon")
        decoder.decode_many(payloads[:known])
        return (decoder.decode, payloads[known:]), {}

    def each(decode, rest):
        return sum(map(decode, rest))

    benchmark.extra_info["quotes"] = COUNT
    assert benchmark.pedantic(each, setup=primed, rounds=15, warmup_rounds=2) == COUNT
