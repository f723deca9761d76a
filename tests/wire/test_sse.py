"""The SSE decoder and encoder: the standard's rules, limits, and that chunking makes no difference."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmcp_actors.wire.sse import COMMENT_KEEPALIVE, EventDecoder, ServerSentEvent, encode_event

LIMIT = 1 << 20


def decode(stream: bytes, *, max_event_bytes: int = LIMIT) -> list[ServerSentEvent]:
    return EventDecoder(max_event_bytes).feed(stream)


# --- rules of the standard --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_counts(end: bytes) -> None:
    stream = b"event: note\ndata: one\ndata: two\nid: 7\n\ndata: x\n\n".replace(b"\n", end)

    assert [ServerSentEvent("one\ntwo", "note", "7"), ServerSentEvent("x")] == decode(stream)


def test_crlf_split_across_chunks_is_one_line_end() -> None:
    decoder = EventDecoder(LIMIT)

    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"data: b\r") == []
    assert [ServerSentEvent("a\nb")] == decoder.feed(b"\n\r")
    assert decoder.feed(b"\n") == []


def test_event_ends_at_the_cr_without_waiting_for_an_lf() -> None:
    assert [ServerSentEvent("a")] == decode(b"data: a\r\r")


def test_byte_order_mark_is_skipped_once() -> None:
    decoder = EventDecoder(LIMIT)

    assert decoder.feed(b"\xef\xbb") == []
    assert [ServerSentEvent("a")] == decoder.feed(b"\xbfdata: a\n\n")
    assert decoder.feed(b"\xef\xbb\xbfdata: b\n\n") == []


def test_only_one_space_after_the_colon_goes() -> None:
    assert [ServerSentEvent(" a\nb\n")] == decode(b"data:  a\ndata:b\ndata\n\n")


def test_comments_and_unknown_fields_are_skipped() -> None:
    assert [ServerSentEvent("a")] == decode(COMMENT_KEEPALIVE + b": hello\nfoo: bar\n data: no\ndata: a\n\n")


def test_unfinished_block_is_no_event_and_sets_no_id() -> None:
    decoder = EventDecoder(LIMIT)

    assert decoder.feed(b"id: 1\ndata: a\n") == []
    assert decoder.last_event_id == ""


def test_character_cut_by_a_chunk_is_put_together() -> None:
    decoder = EventDecoder(LIMIT)

    assert decoder.feed("data: ä".encode()[:-1]) == []
    assert [ServerSentEvent("ä")] == decoder.feed("ä".encode()[-1:] + b"\n\n")


def test_invalid_utf8_is_replaced() -> None:
    assert [ServerSentEvent("a\ufffdb")] == decode(b"data: a\xffb\n\n")


# --- ids and retry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [b"id: 5\n\n", b"id: 5\ndata:\n\n", b"id: 5\ndata: \n\n"])
def test_priming_event_sets_the_id_and_is_no_event(block: bytes) -> None:
    decoder = EventDecoder(LIMIT)

    assert decoder.feed(block) == []
    assert decoder.last_event_id == "5"


def test_id_stays_until_another_one_comes() -> None:
    decoder = EventDecoder(LIMIT)

    assert [event.id for event in decoder.feed(b"data: a\n\nid: 1\ndata: b\n\n")] == [None, "1"]
    assert [event.id for event in decoder.feed(b"data: c\n\n")] == [None]
    assert decoder.last_event_id == "1"
    decoder.feed(b"id\n\n")
    assert decoder.last_event_id == ""


def test_id_with_nul_is_ignored() -> None:
    decoder = EventDecoder(LIMIT)
    decoder.feed(b"id: 1\n\nid: 2\0\n\n")

    assert decoder.last_event_id == "1"


def test_retry_is_milliseconds_on_the_wire_and_seconds_here() -> None:
    decoder = EventDecoder(LIMIT)

    assert [ServerSentEvent("a", retry=1.5)] == decoder.feed(b"retry: 1500\ndata: a\n\n")
    assert decoder.retry == 1.5


@pytest.mark.parametrize("value", [b"-1", b"1.5", b"", b"1 ", "٣".encode(), b"9" * 5000])
def test_retry_that_is_not_digits_is_ignored(value: bytes) -> None:
    decoder = EventDecoder(LIMIT)
    decoder.feed(b"retry: " + value + b"\n\n")

    assert decoder.retry is None


def test_resumed_decoder_keeps_the_id_and_drops_the_unfinished_block() -> None:
    decoder = EventDecoder(LIMIT)
    decoder.feed(b"id: 1\nretry: 500\n\nid: 2\ndata: lost\ndata: cut")
    resumed = decoder.resumed()

    assert (resumed.last_event_id, resumed.retry) == ("1", 0.5)
    assert resumed.feed(b"\ndata: a\n\n") == [ServerSentEvent("a")]
    assert resumed.last_event_id == "1"


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_event_past_the_limit_is_refused_however_it_is_cut(size: int) -> None:
    stream = b"data: 0123456789\ndata: 0123456789\n\n"
    chunks = [stream[i : i + size] for i in range(0, len(stream), size)]

    with pytest.raises(ValueError, match="more than 31 bytes"):
        list(map(EventDecoder(31).feed, chunks))
    assert [ServerSentEvent("0123456789\n0123456789")] == decode(stream, max_event_bytes=32)


def test_line_without_end_is_refused() -> None:
    decoder = EventDecoder(100)

    for _ in range(10):
        decoder.feed(b"0123456789")
    with pytest.raises(ValueError, match="more than 100 bytes"):
        decoder.feed(b"0")


def test_endless_comments_are_no_event() -> None:
    decoder = EventDecoder(100)
    for _ in range(1000):
        assert decoder.feed(b": still there\n") == []


def test_limit_is_per_event() -> None:
    assert len(decode(b"data: 0123456789\n\n" * 100, max_event_bytes=20)) == 100


# --- properties -------------------------------------------------------------------------------------------------------

pieces = st.sampled_from(
    [
        b"data",
        b"event",
        b"id",
        b"retry",
        b":",
        b" ",
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\n",
        b"12",
        b"\0",
        b"\xef\xbb\xbf",
        b"x",
    ]
) | st.sampled_from([c.encode() for c in "äλ💡\u2028\x85"])
streams = st.lists(pieces, max_size=40).map(b"".join) | st.binary(max_size=60)


@st.composite
def chunked(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    stream = draw(streams)
    cuts = sorted(draw(st.sets(st.integers(0, len(stream)))) | {0, len(stream)})
    return stream, [stream[a:b] for a, b in itertools.pairwise(cuts)]


@given(chunked(), st.sampled_from([12, LIMIT]))
def test_chunking_makes_no_difference(case: tuple[bytes, list[bytes]], limit: int) -> None:
    stream, chunks = case
    whole, pieced = EventDecoder(limit), EventDecoder(limit)
    events: list[ServerSentEvent] = []
    try:
        expected: list[ServerSentEvent] | None = whole.feed(stream)
    except ValueError:
        expected = None

    if expected is None:
        with pytest.raises(ValueError, match="bytes"):
            list(map(pieced.feed, chunks))
        return
    for chunk in chunks:
        events += pieced.feed(chunk)
    assert expected == events
    assert (whole.last_event_id, whole.retry) == (pieced.last_event_id, pieced.retry)


text = st.text(st.characters(exclude_categories=["Cs"]))
word = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))


@given(text.filter(bool), st.none() | word, st.none() | word, st.none() | st.integers(0, 10**9))
@example("\n", None, None, None)
@example(" leading: colon\r\n", "", "", 0)
def test_round_trip(data: str, event: str | None, event_id: str | None, retry_ms: int | None) -> None:
    encoded = encode_event(data.encode(), event=event, id=event_id, retry_ms=retry_ms)

    expected = ServerSentEvent(
        data.replace("\r\n", "\n").replace("\r", "\n"),
        event or "message",
        event_id,
        None if retry_ms is None else retry_ms / 1000,
    )
    assert [expected] == decode(encoded)
    assert [expected] * 2 == decode(encoded + COMMENT_KEEPALIVE + encoded)


def test_encoder_makes_priming_events() -> None:
    decoder = EventDecoder(LIMIT)

    assert decoder.feed(encode_event(b"", id="a/0", retry_ms=500)) == []
    assert (decoder.last_event_id, decoder.retry) == ("a/0", 0.5)


def test_encoder_refuses_what_would_read_as_something_else() -> None:
    with pytest.raises(ValueError, match="name"):
        encode_event(b"", event="a\ndata: b")
    with pytest.raises(ValueError, match="id"):
        encode_event(b"", id="a\rb")
    with pytest.raises(ValueError, match="id"):
        encode_event(b"", id="\0")
    with pytest.raises(ValueError, match="retry_ms"):
        encode_event(b"", retry_ms=-1)
