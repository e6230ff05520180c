"""How long does one frame take to decode and conflate, by every decoder of rivals.py?"""

import frames
import pytest
import rivals

SOURCES = {"made": frames.quotes, "mixed": frames.mixed, "recorded": frames.recorded_quotes}


@pytest.fixture(scope="module", params=SOURCES)
def payloads(request: pytest.FixtureRequest) -> list[bytes]:
    found = SOURCES[request.param]()
    if not found:
        pytest.skip("FASTFEED_FRAMES does not name a folder of recorded frames")
    return found


@pytest.mark.parametrize("name", rivals.DECODERS)
def test_decode(benchmark, payloads, name):
    benchmark.extra_info["frames"] = len(payloads)
    result = benchmark.pedantic(rivals.DECODERS[name], args=(payloads,), rounds=3, warmup_rounds=1)
    table = result if isinstance(result, dict) else rivals.as_table(result)
    assert len(table) >= 1
