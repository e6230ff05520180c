"""CME Group's "Market Data Over WebSocket API": top of book and trades of futures. Data only.

Sources: the Client Systems Wiki for words and rules; address, and that `payload` is an array, from the code of three
repositories. Every scalar is a string. `sequenceNumber` counts all messages of a session: a hole means that this client
was too slow; there is no replay, the next message is the repair. One bad product refuses a whole request.

A product code brings every expiry; a period code narrows it to one, so a symbol is the contract as CME writes it,
"CLG6": product, month letter, last digit of the year, which is taken to lie in 2025 to 2034.

The counter runs over acks and heartbeats too, and starts anew with each session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fastfeed.credentials import Auth, Token
from fastfeed.dialect import Ack, Beat, Denial, Dialect, Greeting, Refusal, Reply
from fastfeed.failures import Failure
from fastfeed.heartbeat import Beats
from fastfeed.providers import Channel, Evidence, Provider
from fastfeed.schema import Message, Schema
from fastfeed.staleness import Week
from fastfeed.subscriptions import Limits, Render
from fastfeed.text import dumps, loads, mapping

_MONTHS = "FGHJKMNQUVXZ"


def _request(kind: str) -> Render:
    def render(number: int, topics: Sequence[str]) -> str:
        wishes = [_wish(topic) for topic in topics]
        header = {"messageType": kind, "version": "1.0", "requestId": str(number), "token": ""}
        payload = {
            "subscriptionMessageTypes": [_type_of(topics[0])] if topics else [],
            "subscriptions": wishes,
        }
        return dumps({"header": header, "payload": payload}).decode()

    return render


def _type_of(topic: str) -> str:
    """TOB or TRD: the messages of one request are all of one type."""
    return topic.partition(":")[0]


def _wish(topic: str) -> dict[str, object]:
    contract = topic.partition(":")[2]
    product, month, digit = contract[:-2], contract[-2], int(contract[-1])
    year = 2020 + digit if digit >= 5 else 2030 + digit
    period = f"{year}{_MONTHS.index(month) + 1:02d}"
    return {"productType": "FUT", "productCode": product, "periodCodes": [period]}


def _read(payload: bytes) -> tuple[Reply, ...]:
    message = mapping(payload)
    header = message.get("header")
    if not isinstance(header, dict):
        return ()
    content = message.get("payload")
    return tuple(_replies(header, content if isinstance(content, dict) else {}))


def _replies(header: Mapping[str, object], payload: Mapping[str, object]) -> Iterator[Reply]:
    asked = str(header.get("requestId", ""))
    number = int(asked) if asked.isdecimal() else None
    said = str(payload.get("message") or payload.get("errorMessage") or payload.get("status") or "")
    match header.get("messageType"):
        case "HEARTBEAT":
            yield Beat()
        case "LOGINSTATUS":
            yield Greeting() if payload.get("status") == "authenticated" else Denial(Failure.AUTH, said)
        case "SUBSCRIPTION_STATUS":
            yield Ack(number)
        case "SUBSCRIPTION_ERROR":
            yield Refusal(number, said)


def _token(body: bytes) -> tuple[str, float | None]:
    answer = loads(body)
    lives = answer.get("expires_in")
    return str(answer["access_token"]), float(lives) - 60.0 if isinstance(lives, int | float) else None


_CME = Provider(
    name="cme",
    url="wss://markets.api.cmegroup.com",
    channels={
        "quote": Channel(topic="TOB:{symbol}", path="/marketdatastream/v1"),
        "trade": Channel(topic="TRD:{symbol}", path="/marketdatastream/v1"),
    },
    schema=Schema(
        Message(
            "quote",
            match={"header.messageType": "TOB"},
            each="payload",
            symbol="instrument.symbol",
            bid="bidLevel.0.price",
            bid_size="bidLevel.0.qty",
            ask="askLevel.0.price",
            ask_size="askLevel.0.qty",
            whole=True,
            seq="^.header.sequenceNumber",
            sequence="connection",
            event_time=("^.header.sentTime", "iso"),
        ),
        Message(
            "trade",
            match={"header.messageType": "TRD"},
            each="payload",
            symbol="instrument.symbol",
            price="tradeSummary.tradePrice",
            size="tradeSummary.tradeQty",
            side="tradeSummary.aggressorSide",
            seq="^.header.sequenceNumber",
            sequence="connection",
            event_time=("lastUpdateTime", "iso"),
        ),
        Message("control", has=("header.messageType",), seq="header.sequenceNumber"),
        name="cme",
    ),
    dialect=Dialect(
        subscribe=_request("SUBSCRIBE"),
        unsubscribe=_request("UNSUBSCRIBE"),
        read=_read,
        greets=True,
        group=_type_of,
    ),
    # Its period is not documented; the order entry socket beats every 5 s and is given up after 15.
    beats=Beats(expected=15.0),
    limits=Limits(streams_per_connection=None),
    auth=Auth(
        env={"client_id": "CME_CLIENT_ID", "client_secret": "CME_CLIENT_SECRET"},
        headers={"Authorization": "Bearer {token}"},
        token=Token(
            url="https://auth.cmegroup.com/as/token.oauth2",
            method="POST",
            form={
                "grant_type": "client_credentials",
                "client_id": "{client_id}",
                "client_secret": "{client_secret}",
            },
            read=_token,
            lifetime=1740.0,  # half an hour, by the order entry page
        ),
    ),
    symbol=rf"[A-Z0-9]+[{_MONTHS}][0-9]",
    example="CLG6",
    upper=True,
    # Globex: from Sunday to Friday, with an hour's halt every day, which the learned pace allows for.
    hours=Week(start="Sun 17:00", end="Fri 16:00", zone="America/Chicago"),
    evidence=Evidence(
        grade="official pages for words and rules; address and array form from clients' code",
        samples="control messages from the official pages, data messages made from their tables of fields",
        unchecked="no published package that speaks it is known",
    ),
)

PROVIDERS = {"cme": _CME}
