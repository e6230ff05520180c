"""The record of what is wanted: stages, requests sized to the provider, answers of every kind, spreading, pacing."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastfeed.subscriptions import Book, Limits, Pace, Stage, Subscription, spread


def ask(request_id: int, topics: Sequence[str]) -> str:
    return json.dumps({"id": request_id, "ask": list(topics)}, separators=(",", ":"))


def leave(request_id: int, topics: Sequence[str]) -> str:
    return json.dumps({"id": request_id, "leave": list(topics)}, separators=(",", ":"))


def sub(name: str) -> Subscription:
    return Subscription(name, "quote")


def book_of(*names: str, **limits: int) -> Book:
    book = Book(ask, leave, Limits(**limits))
    for name in names:
        book.want(sub(name), name.lower())
    return book


def stages(book: Book) -> dict[str, str]:
    return {record.subscription.symbol: record.stage.value for record in book}


def asked(book: Book, now: float = 0.0) -> list[list[str]]:
    """Everything the book wants to send now."""
    sent = []
    while (request := book.request(now)) is not None:
        sent.append(json.loads(request.text).get("ask") or ["-", *json.loads(request.text)["leave"]])
    return sent


def test_subscriptions_are_equal_whatever_the_order_of_their_parameters() -> None:
    one = Subscription("A", "depth", levels=5, speed="100ms")
    two = Subscription("A", "depth", speed="100ms", levels=5)
    assert one == two
    assert len({one, two}) == 1
    assert one != Subscription("A", "depth", levels=10, speed="100ms")
    assert repr(one) == "Subscription('A', 'depth', levels=5, speed='100ms')"


def test_a_wish_goes_from_wanted_to_live() -> None:
    book = book_of("A")
    assert stages(book) == {"A": "wanted"}
    request = book.request(0.0)
    assert request is not None
    assert stages(book) == {"A": "requested"}
    assert not book.settled
    assert book.acked(request.id)
    assert stages(book) == {"A": "acked"}
    assert book.settled
    assert [record.subscription for record in book.silent] == [sub("A")]
    assert book.delivered(sub("A"))
    assert stages(book) == {"A": "live"}
    assert not book.delivered(sub("A")), "only the first data is news"


def test_data_may_come_before_the_ack() -> None:
    book = book_of("A")
    request = book.request(0.0)
    assert request is not None
    assert book.delivered(sub("A"))
    book.acked(request.id)
    assert stages(book) == {"A": "live"}


def test_requests_are_cut_by_count_and_by_bytes() -> None:
    names = [f"S{i:02}" for i in range(10)]
    assert asked(book_of(*names, streams_per_request=4)) == [
        ["s00", "s01", "s02", "s03"],
        ["s04", "s05", "s06", "s07"],
        ["s08", "s09"],
    ]
    book = book_of(*names, bytes_per_request=40)
    sizes = []
    while (request := book.request(0.0)) is not None:
        sizes.append(len(request.text))
    assert max(sizes) <= 40
    assert book.at(Stage.WANTED) == []


@given(
    names=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=40, unique=True),
    limit=st.integers(60, 400),
)
def test_no_request_of_several_exceeds_the_bytes_and_none_is_forgotten(names: list[str], limit: int) -> None:
    def render(request_id: int, topics: Sequence[str]) -> str:
        return f"{request_id}" + ",".join(f'"{topic}"' for topic in topics)

    book = Book(render, render, Limits(bytes_per_request=limit))
    for name in names:
        book.want(sub(name), name)
    seen = []
    while (request := book.request(0.0)) is not None:
        assert len(request.records) == 1 or len(request.text.encode()) <= limit
        seen += [record.topic for record in request.records]
    assert seen == names


def test_a_single_topic_too_long_for_the_limit_is_still_asked_for() -> None:
    assert asked(book_of("A" * 100, bytes_per_request=20)) == [["a" * 100]]


def test_a_refused_request_of_one_is_rejected_with_the_reason() -> None:
    book = book_of("A")
    request = book.request(0.0)
    assert request is not None
    rejected = book.refused(request.id, "no such symbol")
    assert [record.subscription for record in rejected] == [sub("A")]
    assert rejected[0].reason == "no such symbol"
    assert stages(book) == {"A": "rejected"}
    assert book.settled
    assert asked(book) == [], "a rejected wish is not asked for again"
    book.want(sub("A"), "a")
    assert stages(book) == {"A": "wanted"}, "unless it is wished for again"


@given(bad=st.sets(st.integers(0, 15), max_size=5), count=st.integers(1, 16))
def test_halving_a_refused_request_finds_exactly_the_culprits(bad: set[int], count: int) -> None:
    names = [f"S{i}" for i in range(count)]
    culprits = {f"S{i}" for i in bad if i < count}
    book = book_of(*names)
    rounds = 0
    while (request := book.request(0.0)) is not None:
        rounds += 1
        assert rounds < 4 * count, "halving does not end"
        if any(record.subscription.symbol in culprits for record in request.records):
            book.refused(request.id, "bad")
        else:
            book.acked(request.id)
    assert {name for name, stage in stages(book).items() if stage == "rejected"} == culprits
    assert {name for name, stage in stages(book).items() if stage == "acked"} == set(names) - culprits


def test_a_refusal_without_an_id_meets_the_only_request_on_its_way() -> None:
    book = book_of("A")
    book.request(0.0)
    assert len(book.refused(None, "bad") or ()) == 1
    assert book.refused(None, "bad") is None, "there is nothing left to refuse"


def test_refusals_without_ids_wait_until_they_must_mean_all_that_are_left() -> None:
    book = book_of("A", "B", "C", streams_per_request=1)
    first = book.request(0.0)
    asked(book)
    assert book.refused(None, "bad") == [], "it could have meant any"
    assert stages(book) == {"A": "requested", "B": "requested", "C": "requested"}
    assert first is not None
    assert book.acked(first.id)
    rejected = book.refused(None, "bad") or ()
    assert [record.subscription.symbol for record in rejected] == ["B", "C"]
    assert stages(book) == {"A": "acked", "B": "rejected", "C": "rejected"}


def test_after_refusals_that_do_not_say_of_what_one_request_is_made_at_a_time() -> None:
    book = book_of("A", "B", "C", "D", streams_per_request=2)
    asked(book)
    assert book.refused(None, "bad") == []
    assert book.overdue(10.0, 5.0) == 1, "the other request was not answered at all"
    outcome: dict[str, str] = {}
    for _ in range(10):
        request = book.request(10.0)
        if request is None:
            break
        assert not book.pending, "a second request would make a refusal ambiguous"
        names = [record.subscription.symbol for record in request.records]
        if "B" in names:
            outcome |= {record.subscription.symbol: "rejected" for record in book.refused(None, "bad") or ()}
        else:
            book.acked(request.id)
    assert outcome == {"B": "rejected"}
    assert stages(book) == {"A": "acked", "B": "rejected", "C": "acked", "D": "acked"}


def test_topics_acked_or_refused_one_by_one_answer_their_request() -> None:
    book = book_of("A", "B", "C")
    book.request(0.0)
    assert book.acked(topics=("a", "b"))
    assert book.answer_due(5.0) == 5.0, "one topic is still unanswered"
    rejected = book.refused(None, "not in your plan", topics=("c",)) or ()
    assert [record.subscription.symbol for record in rejected] == ["C"]
    assert book.answer_due(5.0) is None
    assert stages(book) == {"A": "acked", "B": "acked", "C": "rejected"}
    assert not book.acked(topics=("nobody",))


def test_an_answer_may_spell_a_topic_in_another_way() -> None:
    book = Book(ask, leave, Limits(), echoes=lambda topic: (topic.partition(".")[0],))
    for name in ("700.HK", "AAPL.US"):
        book.want(sub(name), name)
    book.request(0.0)
    assert book.acked(topics=["700"])
    assert stages(book) == {"700.HK": "acked", "AAPL.US": "requested"}
    assert not book.acked(topics=["701"])
    assert book.refused(None, "no such symbol", ["AAPL"]) == [book.record_of(sub("AAPL.US"))]


def test_the_servers_number_of_what_it_serves_is_named_by_all_later_requests() -> None:
    def numbered(request: str | bytes, number: int) -> str:
        return json.dumps({**json.loads(request), "number": number})

    book = Book(ask, leave, Limits(streams_per_request=1), numbered=numbered)
    for name in ("A", "B"):
        book.want(sub(name), name)
    first = book.request(0.0)
    assert first is not None
    assert "number" not in json.loads(first.text)
    assert not book.pending, "the number is waited for"
    assert book.acked(first.id)
    book.number = 7
    assert book.pending
    second = book.request(1.0)
    assert second is not None
    assert json.loads(second.text)["number"] == 7
    book.lost()
    third = book.request(2.0)
    assert third is not None
    assert "number" not in json.loads(third.text)


def test_a_list_of_all_that_is_served_is_compared_with_what_was_asked() -> None:
    book = book_of("A", "B", "C")
    book.request(0.0)
    assert book.active(frozenset({"a", "b"}))
    assert stages(book) == {"A": "acked", "B": "acked", "C": "wanted"}
    alone = book.request(1.0)
    assert alone is not None
    assert [record.subscription.symbol for record in alone.records] == ["C"]
    assert book.active(frozenset({"b"}))
    assert stages(book) == {"A": "wanted", "B": "acked", "C": "rejected"}, "A was dropped by the server"
    assert not book.active(frozenset()), "that answers no request"


def test_without_acks_a_request_counts_as_accepted_until_the_server_complains() -> None:
    book = Book(ask, leave, Limits(streams_per_request=1), acks=False)
    for name in "ABC":
        book.want(Subscription(name, "quote"), name.lower())
    asked(book)
    assert stages(book) == {"A": "acked", "B": "acked", "C": "acked"}
    assert book.answer_due(5.0) is None
    book.delivered(Subscription("C", "quote"))
    rejected = book.refused(None, "too many symbols") or ()
    assert [record.subscription.symbol for record in rejected] == ["B"], "the newest that has not delivered"


def test_topics_of_different_groups_do_not_share_a_request() -> None:
    book = Book(ask, leave, Limits(), group=lambda topic: topic.partition(":")[0])
    for topic in ("t:A", "q:A", "t:B"):
        book.want(Subscription(topic[2:], topic[0]), topic)
    groups = asked(book)
    assert groups == [["t:A", "t:B"], ["q:A"]]


def test_answers_to_nothing_we_asked_are_counted_and_change_nothing() -> None:
    book = book_of("A")
    request = book.request(0.0)
    assert request is not None
    assert not book.acked(99)
    assert book.refused(98, "bad") is None
    assert book.acked(request.id)
    assert not book.acked(request.id), "a second ack of the same request"
    assert book.strays == 3
    assert stages(book) == {"A": "acked"}


def test_a_refusal_that_contradicts_an_ack_is_believed_for_what_has_not_delivered() -> None:
    """A stray ack came first, whose number was by chance that of a request: what is refused is never sent."""
    book = book_of("A", "B", "C")
    request = book.request(0.0)
    assert request is not None
    assert book.acked(request.id)
    assert book.delivered(sub("A"))
    assert book.refused(request.id, "one of these is unknown") == []
    assert stages(book) == {"A": "live", "B": "wanted", "C": "wanted"}
    assert book.refused(request.id, "said twice") is None
    assert asked(book, 1.0) == [["b"], ["c"]]
    assert book.acked(2)
    assert book.refused(2, "unknown") == [record for record in book if record.subscription == sub("B")]
    assert stages(book) == {"A": "live", "B": "rejected", "C": "requested"}
    assert book.strays == 1


def test_an_unanswered_request_is_asked_again_in_halves() -> None:
    book = book_of("A", "B", "C", "D")
    assert asked(book, 0.0) == [["a", "b", "c", "d"]]
    assert book.answer_due(5.0) == 5.0
    assert book.overdue(4.9, 5.0) == 0
    assert book.overdue(5.0, 5.0) == 1
    assert asked(book, 5.0) == [["a", "b"], ["c", "d"]]


def test_a_loss_makes_everything_wanted_again_but_the_rejected() -> None:
    book = book_of("A", "B", "C", streams_per_request=1)
    requests = [book.request(0.0) for _ in range(3)]
    assert all(requests)
    book.acked(1)
    book.refused(2, "bad")
    assert [record.subscription.symbol for record in book.lost()] == ["A", "C"]
    assert stages(book) == {"A": "wanted", "B": "rejected", "C": "wanted"}
    assert not book.acked(3), "answers do not outlive the connection"
    assert asked(book) == [["a"], ["c"]]


def test_a_wish_taken_back_before_it_was_asked_for_is_never_sent() -> None:
    book = book_of("A", "B")
    book.drop(sub("A"))
    assert asked(book) == [["b"]]


def test_a_wish_taken_back_is_left_and_may_be_wished_again() -> None:
    book = book_of("A", "B")
    asked(book)
    book.acked(1)
    book.drop(sub("A"))
    assert book.pending
    assert asked(book) == [["-", "a"]]
    book.want(sub("A"), "a")
    assert asked(book) == [["a"]]


def test_a_wish_taken_back_and_wished_again_at_once_sends_nothing_but_waits_for_new_data() -> None:
    book = book_of("A")
    asked(book)
    book.acked(1)
    book.delivered(sub("A"))
    book.drop(sub("A"))
    book.want(sub("A"), "a")
    assert asked(book) == []
    assert stages(book) == {"A": "acked"}


def test_wishing_twice_changes_nothing() -> None:
    book = book_of("A", "A")
    assert asked(book) == [["a"]]
    book.want(sub("A"), "a")
    assert asked(book) == []


@given(count=st.integers(0, 2000), limit=st.integers(1, 300))
def test_wishes_are_spread_evenly_over_as_few_connections_as_possible(count: int, limit: int) -> None:
    parts = spread(range(count), limit)
    assert [item for part in parts for item in part] == list(range(count))
    assert len(parts) == -(-count // limit)
    if parts:
        sizes = [len(part) for part in parts]
        assert max(sizes) <= limit
        assert max(sizes) - min(sizes) <= 1


def test_without_a_limit_one_connection_carries_all() -> None:
    assert spread("abc", None) == [["a", "b", "c"]]
    assert spread("", None) == []


@given(
    per_second=st.integers(1, 10),
    waits=st.lists(st.floats(0, 0.5), min_size=1, max_size=100),
)
def test_no_window_ever_holds_more_messages_than_the_pace(per_second: int, waits: list[float]) -> None:
    pace = Pace(per_second)
    now, sent = 0.0, []
    for wait in waits:
        now = max(now + wait, pace.ready_at())
        pace.spend(now)
        sent.append(now)
    for first, last in zip(sent, sent[per_second:], strict=False):
        assert last - first >= 1.0, f"{per_second + 1} messages within {last - first} s"


def test_without_a_limit_the_pace_is_always_ready() -> None:
    pace = Pace(None)
    for _ in range(1000):
        pace.spend(0.0)
    assert pace.ready_at() == float("-inf")


@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_is_counted_once(stage: Stage) -> None:
    book = book_of("A", "B")
    next(iter(book)).stage = stage
    assert sum(len(book.at(each)) for each in Stage) == len(book) == 2


# Topics that serve several wishes ------------------------------------------------------------------------------------

QUOTES, TRADES = Subscription("A", "quote"), Subscription("A", "trade")


def shared(*, acks: bool = True) -> Book:
    """Quotes and trades of A, which one topic brings."""
    book = Book(ask, leave, Limits(streams_per_request=1), acks=acks)
    book.want(QUOTES, "a")
    book.want(Subscription("B", "quote"), "b")
    book.want(TRADES, "a")
    return book


@pytest.mark.parametrize("acks", [True, False])
def test_a_topic_that_serves_several_wishes_is_asked_for_once(acks: bool) -> None:
    book = shared(acks=acks)
    assert asked(book) == [["a"], ["b"]]
    if acks:
        assert book.acked(1)
    record = book.record_of(TRADES)
    assert record is not None
    assert record.stage is Stage.ACKED
    assert book.delivered(QUOTES)
    assert record.stage is Stage.ACKED, "trades have not delivered yet"


def test_a_topic_is_left_with_the_last_of_its_wishes() -> None:
    book = shared(acks=False)
    asked(book)
    book.drop(QUOTES)
    assert asked(book) == []
    book.drop(TRADES)
    assert asked(book) == [["-", "a"]]


def test_a_wish_for_a_topic_that_was_to_be_left_for_another_keeps_it() -> None:
    book = shared(acks=False)
    asked(book)
    book.drop(QUOTES)
    book.drop(TRADES)
    book.want(QUOTES, "a")
    assert asked(book) == [["a"]], "asked for again, and never left"
    assert [record.subscription for record in book] == [Subscription("B", "quote"), QUOTES]
    book.drop(QUOTES)
    assert asked(book) == [["-", "a"]]


def test_a_refusal_of_a_topic_refuses_all_it_would_have_served() -> None:
    book = shared()
    asked(book)
    assert book.refused(None, "no", topics=["a"]) == [book.record_of(QUOTES), book.record_of(TRADES)]
