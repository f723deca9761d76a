"""A sealed state opens for whom it was given, and for nobody else."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vmcp_actors.errors import InvalidParams
from vmcp_actors.sessions.request_state import StateSeal

SEAL = StateSeal()
owners = st.tuples(st.text(max_size=10), st.text(max_size=10))
states = st.text(max_size=50)


@given(owners, states)
def test_a_state_comes_back_exactly(owner: tuple[str, str], state: str) -> None:
    assert SEAL.open(*owner, SEAL.seal(*owner, state)) == state


@given(owners, owners, states)
def test_it_opens_for_nobody_else(owner: tuple[str, str], other: tuple[str, str], state: str) -> None:
    """Also where the texts of principal, backend and state are the same in a row."""
    assume(owner != other)
    with pytest.raises(InvalidParams):
        SEAL.open(*other, SEAL.seal(*owner, state))


@given(owners, states, st.data())
def test_a_changed_one_opens_for_nobody(owner: tuple[str, str], state: str, data: st.DataObject) -> None:
    sealed = SEAL.seal(*owner, state)
    place = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.characters().filter(lambda character: character != sealed[place]))
    with pytest.raises(InvalidParams):
        SEAL.open(*owner, sealed[:place] + other + sealed[place + 1 :])


@given(owners, st.text(max_size=60))
def test_one_that_was_never_sealed_does_not_open(owner: tuple[str, str], state: str) -> None:
    with pytest.raises(InvalidParams):
        SEAL.open(*owner, state)


@given(owners, states)
def test_another_process_does_not_open_it(owner: tuple[str, str], state: str) -> None:
    with pytest.raises(InvalidParams):
        StateSeal().open(*owner, SEAL.seal(*owner, state))
