"""What only passes through stays as it came, and reads the same when somebody looks."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmcp_actors.errors import ParseError, RequestError
from vmcp_actors.transports.sdk import from_sdk, to_sdk
from vmcp_actors.wire.folding import PAYLOAD, folded, is_object, unfolded
from vmcp_actors.wire.messages import Message, decode_message, encode_request, encode_result

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(st.sampled_from(sorted(PAYLOAD)) | st.text(max_size=8), values, max_size=6)


def request(params: str) -> Message:
    return decode_message(f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {params}}}'.encode())


@given(objects, st.sampled_from((None, 2)), st.booleans())
def test_a_folded_object_unfolds_to_what_it_was(value: dict[str, Any], indent: int | None, ascii_only: bool) -> None:
    message = request(json.dumps(value, indent=indent, ensure_ascii=ascii_only))
    assert message.arguments == value
    assert unfolded(message.folded_arguments) == value
    assert json.loads(encode_result(1, message.folded_arguments))["result"] == value


@given(objects)
def test_only_payload_is_folded(value: dict[str, Any]) -> None:
    for name, member in request(json.dumps(value)).folded_arguments.items():
        assert isinstance(member, msgspec.Raw) == (name in PAYLOAD and isinstance(value[name], dict | list))


def test_payload_passes_byte_for_byte() -> None:
    text = '{"big": 123456789012345678901234567890, "exact": 1.10, "same": 1, "same": 2}'
    assert text.encode() in encode_request(7, "tools/call", request(f'{{"arguments": {text}}}').folded_arguments)


@given(objects)
def test_what_goes_to_a_child_process_is_one_line(value: dict[str, Any]) -> None:
    line = from_sdk(to_sdk(request(json.dumps(value, indent=1))))
    assert b"\n" not in line
    assert json.loads(line).get("params", {}) == value


@pytest.mark.parametrize("member", ["arguments", "content", "_meta", "other"])
def test_text_that_is_not_utf8_is_refused_wherever_it_is(member: str) -> None:
    with pytest.raises(ParseError):
        decode_message(b'{"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"%b": ["\xff"]}}' % member.encode())


def test_characters_across_the_pieces_of_the_check_are_whole() -> None:
    for padding in range(4):
        text = "x" * (64 * 1024 - 70 + padding) + "€" * 40
        assert request(json.dumps({"arguments": {"text": text}}, ensure_ascii=False)).arguments["arguments"] == {
            "text": text
        }


def test_numbers_out_of_range_are_refused_when_somebody_looks() -> None:
    message = request('{"arguments": {"n": 1e999}}')
    assert is_object(message.folded_arguments["arguments"])
    with pytest.raises(RequestError, match="out of range"):
        unfolded(message.folded_arguments)


@pytest.mark.parametrize(("text", "expected"), [("{}", True), ("[]", False), ("null", False), ('"{"', False)])
def test_an_object_is_known_without_decoding_it(text: str, expected: bool) -> None:
    members = msgspec.json.decode(f'{{"arguments":  {text} }}'.encode(), type=dict[str, msgspec.Raw])
    assert is_object(folded(members)["arguments"]) is expected
