"""An exchange that fastfeed does not know: declare its messages, decode them at compiled speed. No network here."""

from fastfeed import Decoder, Message, Schema

schema = Schema(
    Message(
        "quote",
        match={"type": "bbo"},
        symbol="pair",
        bid="bid.0",
        bid_size="bid.1",
        ask="ask.0",
        ask_size="ask.1",
        seq="n",
        event_time=("at", "iso"),
    ),
    Message("trade", match={"type": "fill"}, symbol="pair", price="px", size="qty", side="taker", seq="id"),
    Message("control", match={"type": "hello"}),
    name="example",
)
decoder = Decoder(schema)
decoder.decode_many(
    [
        b'{"type":"hello","server":"7"}',
        b'{"type":"bbo","pair":"EUR/USD","bid":["1.08312","2e6"],"ask":["1.08314","1e6"],"n":41,"at":"2026-03-02T09:00:00.25Z"}',
        b'{"type":"fill","pair":"EUR/USD","px":1.08313,"qty":250000,"taker":"sell","id":9}',
    ]
)
row = decoder.prices["EUR/USD"]
print(f"EUR/USD {row['bid']} / {row['ask']}, last {row['last']}")
print({name: decoder.stats()[name] for name in ("frames", "data", "control", "unknown", "malformed")})
