"""CME Group's side of "Market Data Over WebSocket": OAuth tokens over HTTP, a login status, products, one counter.

Written from the Client Systems Wiki and, for address and arrays, the code of three clients. What a SUBSCRIPTION_ERROR
carries beside its type is not documented; a text is used. Pure: text in, text out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from fastfeed.lab.stage import QUOTE, TRADE, Asked, Desk, Event, Refused, Said, Stage

TYPES = {"TOB": QUOTE, "TRD": TRADE}
MONTHS = "FGHJKMNQUVXZ"
LIFETIME = 1800  # seconds of a token


def _iso(utc_ns: int) -> str:
    seconds, rest = divmod(utc_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def period_of(contract: str) -> str:
    """The month of a contract as `YYYYMM`: "CLG6" is due in 202602."""
    year = 2020 + int(contract[-1])
    return f"{year if year >= 2025 else year + 10}{MONTHS.index(contract[-2]) + 1:02d}"


class CmeDesk(Desk):
    """One connection to `/marketdatastream/v1`, and the token's page.

    `keys` are `client_id` and `client_secret`; without them any are accepted, and any token that was given out.
    """

    kinds = (QUOTE, TRADE)
    beat_every = 5.0  # not documented for market data; that of order entry

    def __init__(self, stage: Stage, asked: Asked) -> None:
        super().__init__(stage, asked)
        self._sent = 0  # messages of this session, the numbers of all of them

    @classmethod
    def admits(cls, stage: Stage, asked: Asked) -> Refused | None:
        if asked.path != "/marketdatastream/v1":
            return Refused(404)
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        return None if scheme == "Bearer" and token in stage.tokens else Refused(401, "invalid token")

    @classmethod
    def answers(cls, stage: Stage, asked: Asked) -> tuple[int, Mapping[str, str], bytes] | None:
        if asked.path != "/as/token.oauth2":
            return None
        form = {name: values[-1] for name, values in parse_qs(asked.body.decode(errors="replace")).items()}
        scheme, _, basic = asked.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            form["client_id"], _, form["client_secret"] = base64.b64decode(basic).decode().partition(":")
        head = {"Content-Type": "application/json"}
        if asked.method != "POST" or form.get("grant_type") != "client_credentials":
            return 400, head, b'{"error":"unsupported_grant_type"}'
        if any(stage.keys.get(name, form.get(name)) != form.get(name) for name in ("client_id", "client_secret")):
            return 401, head, b'{"error":"invalid_client"}'
        token = {"access_token": stage.issue(), "token_type": "Bearer", "expires_in": LIFETIME}
        return 200, head, json.dumps(token).encode()

    def _said(self, kind: str, payload: object = None, *, at: int | None = None, **header: str) -> str:
        """One message with the next number; a skipped one leaves a hole. `at` (epoch ns) is when, else now."""
        number, self._sent = self._sent, self._sent + 1
        sent = _iso(self.stage.utc_ns() if at is None else at)
        head = {"messageType": kind, "sentTime": sent, "version": "1.0", "sequenceNumber": str(number)}
        return json.dumps({"header": {**header, **head}, **({} if payload is None else {"payload": payload})})

    def greet(self) -> list[Said]:
        return [self._said("LOGINSTATUS", {"status": "authenticated"})]

    def hear(self, message: Said) -> list[Said]:
        try:
            request: Any = json.loads(message)
            kind, number = request["header"]["messageType"], str(request["header"]["requestId"])
            types = list(request["payload"]["subscriptionMessageTypes"])
            wishes = list(request["payload"]["subscriptions"])
            chosen = [contract for wish in wishes for contract in self._contracts(wish)]
        except (ValueError, KeyError, TypeError, AttributeError):
            return [self._said("SUBSCRIPTION_ERROR", {"message": "invalid message"}, requestId="")]
        if kind not in ("SUBSCRIBE", "UNSUBSCRIBE") or not types or not set(types) <= {"TOB", "TRD", "STAT"}:
            return [self._said("SUBSCRIPTION_ERROR", {"message": "invalid request"}, requestId=number)]
        if not all(self._contracts(wish) for wish in wishes):  # one bad product refuses them all
            return [self._said("SUBSCRIPTION_ERROR", {"message": "invalid product"}, requestId=number)]
        for key in [(TYPES[one], contract) for one in types if one in TYPES for contract in chosen]:
            if kind == "SUBSCRIBE":
                self.subscribed[key] = None
            else:
                self.subscribed.pop(key, None)
        status = {"status": f"{kind}D", "subscriptionMessageTypes": types, "subscriptions": wishes}
        return [self._said("SUBSCRIPTION_STATUS", status, requestId=number)]

    def unsaid(self, replies: Sequence[Said]) -> None:
        self._sent -= len(replies)

    def _contracts(self, wish: Mapping[str, Any]) -> list[str]:
        """Every contract of a product, or those of its periods."""
        if wish.get("productType") != "FUT":
            return []
        periods = wish.get("periodCodes")
        mine = [symbol for symbol in self.stage.symbols if symbol[:-2] == wish["productCode"]]
        return [symbol for symbol in mine if not periods or period_of(symbol) in periods]

    def beat(self) -> list[Said]:
        return [self._said("HEARTBEAT")]

    def render(self, events: Sequence[Event]) -> list[Said]:
        """One message each."""
        return [self._told(event) for event in events]

    def _told(self, event: Event) -> str:
        time = _iso(event.utc_ns)
        product = event.symbol[:-2]
        instrument = {
            **{
                "definitionSource": "E",
                "exchangeMic": "XNYM",
                "id": str(10_000 + self.stage.symbols.index(event.symbol)),
            },
            **{"marketSegmentId": "80", "periodCode": period_of(event.symbol), "productCode": product},
            **{"productGroup": product, "productType": "FUT", "symbol": event.symbol},
        }
        if event.kind == TRADE:
            side = "SELL" if event.sells else "BUY"
            summary = {"aggressorSide": side, "mdTradeEntryId": str(1000 + event.number)}
            prices = {"tradePrice": f"{event.price:.2f}", "tradeQty": f"{event.size:.0f}"}
            told = {"instrument": instrument, "lastUpdateTime": time, "tradeSummary": {**summary, **prices}}
            return self._said("TRD", [told], at=event.utc_ns)
        ask = {"lastUpdateTime": time, "orderCnt": "12", "price": f"{event.ask:.2f}", "qty": f"{event.ask_size:.0f}"}
        bid = {"lastUpdateTime": time, "orderCnt": "9", "price": f"{event.bid:.2f}", "qty": f"{event.bid_size:.0f}"}
        return self._said("TOB", [{"askLevel": [ask], "bidLevel": [bid], "instrument": instrument}], at=event.utc_ns)
