"""Resources: whatever backends list, every one stays readable, and no backend takes the place of another (A1, A3)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmcp_actors.errors import UnknownResource
from vmcp_actors.model import Catalog
from vmcp_actors.routing import build_table
from vmcp_actors.routing.table import template_matches
from vmcp_actors.settings import AggregationSettings

PREFIX = AggregationSettings()

backend_names = st.sampled_from(["a", "b", "a/b", "x-y"])
# Plain URIs that clash, and ones that reach for the reserved namespace.
uris = st.sampled_from(
    ["u", "b/u", "f://1", "vmcp://a/u", "vmcp://b/u", "vmcp://a/b/u", "vmcp://b/vmcp://a/u", "vmcp://"]
)
templates = st.sampled_from(["f://{id}", "{+all}", "vmcp://b/{+all}", "{broken", "u{?q}"])


def catalog(uri_list: list[str], template_list: list[str] | None = None) -> Catalog:
    return Catalog(
        resources=tuple({"uri": uri, "x-odd": [uri]} for uri in uri_list),
        resource_templates=tuple({"uriTemplate": template} for template in template_list or ()),
    )


catalogs = st.dictionaries(
    backend_names, st.builds(catalog, st.lists(uris, unique=True), st.lists(templates, unique=True)), max_size=4
)


@given(catalogs)
def test_every_listed_resource_is_readable_at_its_own_backend(cats: dict[str, Catalog]) -> None:
    """None is lost or overwritten, and each advertised URI leads to the backend and the URI that it stands for."""
    table = build_table(cats, PREFIX)
    offered = {(backend, entry["uri"]) for backend, cat in cats.items() for entry in cat.resources}

    assert {(route.backend, route.original) for route in table.resources.values()} == offered
    assert len(table.resource_templates) == sum(len(cat.resource_templates) for cat in cats.values())
    for entry in table.resource_definitions:
        route = table.resource(entry["uri"])
        assert entry["x-odd"] == [route.original]
        assert table.advertised_uri(route.backend, route.original) == entry["uri"]


@given(catalogs, st.randoms())
def test_the_order_of_arrival_makes_no_difference(cats: dict[str, Catalog], rng: Any) -> None:
    """Neither to the routes, nor to the lists, nor to the catalogs themselves."""
    before = copy.deepcopy(cats)
    shuffled = list(cats.items())
    rng.shuffle(shuffled)
    one, other = build_table(cats, PREFIX), build_table(dict(shuffled), PREFIX)

    assert one == other
    assert list(one.resources) == list(other.resources)
    assert cats == before


@given(catalogs, backend_names, st.one_of(uris, st.text(max_size=12)))
def test_an_advertised_uri_leads_back_to_where_it_came_from(cats: dict[str, Catalog], backend: str, uri: str) -> None:
    """Also for URIs that nobody lists: the client that is told of an update can read what was updated."""
    table = build_table(cats, PREFIX)
    advertised = table.advertised_uri(backend, uri)

    if backend in cats:
        route = table.resource(advertised)
        assert (route.backend, route.original) == (backend, uri)
    else:
        assert advertised == uri


def test_no_backend_can_take_a_place_in_the_namespace_of_another() -> None:
    """What it lists there is advertised under its own; `vmcp://b/…` is always b."""
    table = build_table({"a": catalog(["vmcp://b/u"], ["vmcp://b/{+x}"]), "b": catalog(["u"])}, PREFIX)

    assert list(table.resources) == ["vmcp://a/vmcp://b/u", "u"]
    assert table.resource("vmcp://b/u").backend == "b"
    assert table.resource("vmcp://b/other").backend == "b"
    assert table.resource("vmcp://a/vmcp://b/u").original == "vmcp://b/u"


def test_the_namespace_reaches_backends_that_list_no_resources() -> None:
    """The only backend with resources does not get what is meant for another one."""
    table = build_table({"a": catalog(["u"]), "b": Catalog()}, PREFIX)

    assert table.resource("vmcp://b/hidden").backend == "b"
    assert table.resource("elsewhere").backend == "a"


def test_an_update_of_a_resource_of_a_renamed_template_is_told_in_the_namespace() -> None:
    """Its own URI would lead to the backend that kept the template."""
    table = build_table({"a": catalog([], ["f://{id}"]), "b": catalog([], ["f://{id}"])}, PREFIX)

    assert table.advertised_uri("a", "f://7") == "f://7"
    assert table.advertised_uri("b", "f://7") == "vmcp://b/f://7"


def test_completion_for_a_renamed_template_uses_the_backends_own() -> None:
    """The backend never sees our namespace."""
    table = build_table({"a": catalog([], ["f://{id}"]), "b": catalog([], ["f://{id}"])}, PREFIX)
    route, reference = table.completion({"type": "ref/resource", "uri": "vmcp://b/f://{id}"})

    assert (route.backend, reference) == ("b", {"type": "ref/resource", "uri": "f://{id}"})
    with pytest.raises(UnknownResource):
        table.completion({"type": "ref/resource", "uri": "g://{id}"})


def test_entries_that_are_no_objects_are_skipped() -> None:
    """A backend may send anything in its lists."""
    odd: Any = ("text", None, 3, [], {"uri": 3}, {"uri": "u"})

    assert list(build_table({"a": Catalog(resources=odd)}, PREFIX).resources) == ["u"]


@given(st.text("{}+#./;?&,*:a1=%\ud800", max_size=30), st.text("/?#&,=;.a1%\ud800", max_size=30))
def test_no_template_and_no_uri_raises(template: str, uri: str) -> None:
    """Matching hostile input is a matter of yes or no."""
    assert template_matches(template, uri) in (True, False)


def test_matching_has_a_bound() -> None:
    """A template with hundreds of variables would hold up every session for a second; a long URI as well."""
    many = "x://" + "-".join(f"{{v{i}}}" for i in range(250))
    allowed = "x://" + "-".join(f"{{v{i}}}" for i in range(32))

    assert not template_matches(many, "x://" + "-" * 8000)
    assert not template_matches(allowed, "x://" + "-" * 9000)
    assert template_matches(allowed, "x://" + "-" * 8000)
