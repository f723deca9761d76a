"""What the stateless revision adds to messages can be taken away again, and says what the body says."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import classify_inbound_request, decode_header_value, validate_mcp_param_headers

from vmcp_actors.model import Freshness
from vmcp_actors.wire.stateless import (
    Envelope,
    for_stateful,
    for_stateless,
    mirrored_headers,
    needs_input,
    opened,
    stamped,
    subscription_of,
    tagged,
    untagged,
)

texts = st.text(max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts.filter(lambda key: key != "_meta"), plain, max_size=4)
with_meta = st.builds(lambda body, meta: {**body, "_meta": meta}, objects, st.dictionaries(texts, plain, min_size=1))
messages = objects | with_meta
envelopes = st.builds(
    Envelope, st.just("2026-07-28"), objects, objects, st.none() | st.sampled_from(["debug", "error"])
)


@given(messages, envelopes)
def test_an_envelope_can_be_opened_again(params: Any, envelope: Envelope) -> None:
    rest, found = opened(stamped(params, envelope))
    assert found == envelope
    assert rest == params


@given(messages, envelopes, envelopes)
def test_a_second_envelope_takes_the_place_of_the_first(params: Any, first: Envelope, second: Envelope) -> None:
    assert stamped(stamped(params, first), second) == stamped(params, second)


@given(plain)
def test_whatever_stands_for_the_envelope_can_be_opened(meta: Any) -> None:
    _, envelope = opened({"_meta": meta})
    assert isinstance(envelope.capabilities, dict)
    assert isinstance(envelope.protocol_version, str)


@given(st.sampled_from(["tools/call", "prompts/get", "resources/read", "tools/list"]), texts, envelopes)
def test_the_headers_are_those_that_the_sdk_asks_for(method: str, name: str, envelope: Envelope) -> None:
    params = stamped({"uri" if method == "resources/read" else "name": name}, envelope)
    headers = mirrored_headers(method, params)
    verdict = classify_inbound_request({"method": method, "params": params}, headers=headers)
    assert type(verdict).__name__ == "InboundModernRoute"
    if method != "tools/list":
        assert decode_header_value(headers["mcp-name"]) == name
    assert all(value.isascii() for value in headers.values())


SCHEMA = {
    "properties": {
        "text": {"type": "string", "x-mcp-header": "Text"},
        "number": {"type": "integer", "x-mcp-header": "Number"},
        "flag": {"type": "boolean", "x-mcp-header": "Flag"},
        "plain": {"type": "string"},
    }
}
arguments = st.fixed_dictionaries(
    {}, optional={"text": texts | st.none(), "number": st.integers(), "flag": st.booleans(), "plain": texts}
)


@given(arguments)
def test_annotated_arguments_are_repeated_as_the_sdk_asks(given_arguments: Any) -> None:
    params = {"name": "t", "arguments": given_arguments}
    headers = mirrored_headers("tools/call", params, {"name": "t", "inputSchema": SCHEMA})
    assert validate_mcp_param_headers(SCHEMA, given_arguments, headers) is None
    assert not any("plain" in name.lower() for name in headers)


@given(messages, objects)
def test_a_result_for_a_stateless_client_is_the_same_without_what_it_requires(result: Any, info: Any) -> None:
    required = {"resultType", "ttlMs", "cacheScope"}
    if required & result.keys():
        return
    dressed = for_stateless({**result, **Freshness(5, public=True).fields}, info)
    assert dressed["resultType"] == "complete"
    assert dressed["_meta"]["io.modelcontextprotocol/serverInfo"] == info
    assert for_stateful(dressed) == result
    assert not needs_input(dressed)


@given(messages, st.integers() | texts)
def test_a_tag_can_be_taken_off_again(params: Any, subscription: Any) -> None:
    assert subscription_of(tagged(params, subscription)) == subscription
    assert untagged(tagged(params, subscription)) == params


@given(st.lists(st.builds(Freshness, st.integers(0, 100), st.booleans()), min_size=1))
def test_together_the_least_fresh_counts(each: list[Freshness]) -> None:
    together = each[0]
    for other in each[1:]:
        together &= other
    assert together.ttl_ms == min(one.ttl_ms for one in each)
    assert together.public is all(one.public for one in each)
