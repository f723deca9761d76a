"""The table is pure: the same catalogs make the same table, whatever the order, and nothing gets lost (A1–A3)."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmcp_actors.errors import InvalidParams, UnknownPrompt, UnknownResource, UnknownTool, UnresolvedConflicts
from vmcp_actors.model import Catalog
from vmcp_actors.routing import Route, RoutingTable, build_table, static_conflicts
from vmcp_actors.routing.names import distinct_name, safe_name
from vmcp_actors.routing.table import template_matches
from vmcp_actors.settings import AggregationSettings, ToolOverride, WorkloadRules

SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")

backend_names = st.text("ab_-", min_size=1, max_size=4)
# Few letters and underscores make clashes likely; some names are long or odd.
tool_names = st.one_of(st.text("ab_", min_size=1, max_size=4), st.text(min_size=1, max_size=80))


def tool(name: str, **extra: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **extra}


def catalog(*tools: str) -> Catalog:
    return Catalog(tools=tuple(tool(name) for name in tools))


catalogs = st.dictionaries(
    backend_names,
    st.builds(lambda names: catalog(*names), st.lists(tool_names, max_size=6, unique=True)),
    max_size=5,
)


@st.composite
def settings(draw: st.DrawFn, *, of: tuple[str, ...] = ("prefix", "priority")) -> AggregationSettings:
    return AggregationSettings(
        strategy=draw(st.sampled_from(of)),  # type: ignore[arg-type]
        prefix_format=draw(st.sampled_from(["{workload}_", "{workload}", "{workload}.", "x-", ""])),
        priority_order=tuple(draw(st.lists(backend_names, unique=True, max_size=3))),
    )


@given(catalogs, settings(), st.randoms())
def test_the_order_of_arrival_makes_no_difference(cats: dict[str, Catalog], how: AggregationSettings, rng: Any) -> None:
    """A table of the same catalogs in another order is the same, down to the order of its lists."""
    shuffled = list(cats.items())
    rng.shuffle(shuffled)
    one, other = build_table(cats, how), build_table(dict(shuffled), how)

    assert one == other
    assert one.tool_definitions == other.tool_definitions


@given(catalogs, settings())
def test_no_tool_is_lost_and_every_name_is_unique_and_safe(cats: dict[str, Catalog], how: AggregationSettings) -> None:
    """Each tool of each backend has exactly one route, under a name that every model API takes."""
    table = build_table(cats, how)
    offered = {(backend, entry["name"]) for backend, cat in cats.items() for entry in cat.tools}
    routed = [(route.backend, route.original) for route in table.tools.values()]

    assert sorted(routed) == sorted(offered)
    assert all(SAFE.fullmatch(name) for name in table.tools)
    assert [definition["name"] for definition in table.tool_definitions] == list(table.tools)
    assert table.statistics().tools == len(offered)


@given(catalogs, settings())
def test_catalogs_are_not_changed(cats: dict[str, Catalog], how: AggregationSettings) -> None:
    """The same catalogs make other sessions' tables too."""
    before = copy.deepcopy(cats)
    build_table(cats, how)

    assert cats == before


@given(st.text(max_size=200))
def test_safe_names_are_safe_stable_and_keep_what_is_safe(name: str) -> None:
    """Applying it again changes nothing."""
    safe = safe_name(name)

    assert SAFE.fullmatch(safe)
    assert safe_name(safe) == safe
    assert (safe == name) == bool(SAFE.fullmatch(name))


@given(st.text(max_size=80), backend_names, tool_names, backend_names, tool_names)
def test_distinct_names_tell_owners_apart(name: str, b1: str, t1: str, b2: str, t2: str) -> None:
    """Different owners get different names, also when their names run into each other."""
    same = distinct_name(name, b1, t1) == distinct_name(name, b2, t2)

    assert same == ((b1, t1) == (b2, t2))


def test_prefix_is_applied_to_every_tool_and_the_backend_gets_its_own_name() -> None:
    """The default strategy."""
    table = build_table({"git": catalog("log", "status")}, AggregationSettings())

    assert list(table.tools) == ["git_log", "git_status"]
    assert table.tool("git_log") == Route("git", "log", tool("git_log"))


def test_names_that_run_into_each_other_are_seen_as_the_clash_they_are() -> None:
    """`a_` + `b` is `a` + `_b`: both stay reachable, each at its own backend."""
    table = build_table({"a_": catalog("b"), "a": catalog("_b")}, AggregationSettings(prefix_format="{workload}"))
    owners = {route.backend: name for name, route in table.tools.items()}

    assert owners["a"] == "a_b"
    assert re.fullmatch(r"a_b_[0-9a-f]{8}", owners["a_"])
    assert table.conflicts == 1
    assert "1 conflicts settled" in repr(table)


def test_a_suffixed_name_cannot_be_taken_by_a_tool_of_that_name() -> None:
    """Even a backend that guesses the suffix shadows nothing."""
    guessed = distinct_name("a_b", "a_", "b").removeprefix("a_")
    cats = {"a_": catalog("b"), "a": catalog("_b", f"_{guessed}")}
    table = build_table(cats, AggregationSettings(prefix_format="{workload}"))

    assert len(table.tools) == 3


def test_priority_keeps_the_losers_reachable() -> None:
    """The first in the order has the bare name; the others are prefixed, not dropped."""
    cats = {name: catalog("search", f"only_{name}") for name in ("x", "y", "z")}
    table = build_table(cats, AggregationSettings(strategy="priority", priority_order=("y", "x")))

    assert {name: route.backend for name, route in table.tools.items()} == {
        "x_search": "x",
        "only_x": "x",
        "search": "y",
        "only_y": "y",
        "z_search": "z",
        "only_z": "z",
    }
    assert table.statistics().conflicts == 2


def test_priority_without_a_ranked_claimant_prefixes_all() -> None:
    """Nobody wins by chance."""
    table = build_table(
        {"x": catalog("t"), "y": catalog("t")}, AggregationSettings(strategy="priority", priority_order=("other",))
    )

    assert set(table.tools) == {"x_t", "y_t"}
    assert table.statistics().conflicts == 2


def test_priority_loser_does_not_take_a_bare_name() -> None:
    """`x` + `y_t` is undisputed and keeps its name when the loser `y` + `t` would get the same."""
    cats = {"a": catalog("t", "y_t"), "y": catalog("t")}
    table = build_table(cats, AggregationSettings(strategy="priority", priority_order=("a",)))

    assert table.tools["y_t"].backend == "a"
    assert table.tools["t"].backend == "a"
    assert len(table.tools) == 3


def test_manual_refuses_all_conflicts_at_once() -> None:
    """The error names each tool and its owners; overrides settle it."""
    cats = {"x": catalog("t", "u", "v"), "y": catalog("t", "u")}
    with pytest.raises(UnresolvedConflicts, match=r"t \(x, y\); u \(x, y\)") as caught:
        build_table(cats, AggregationSettings(strategy="manual"))
    assert caught.value.conflicts == {"t": ("x", "y"), "u": ("x", "y")}

    rules = WorkloadRules(overrides={"t": ToolOverride(name="yt"), "u": ToolOverride(name="yu")})
    table = build_table(cats, AggregationSettings(strategy="manual", workloads={"y": rules}))
    assert set(table.tools) == {"t", "u", "v", "yt", "yu"}
    assert table.tools["yt"].original == "t"


def test_static_conflicts_are_those_of_the_overrides_themselves() -> None:
    """What cannot work whatever the backends offer."""
    rules = {
        "x": WorkloadRules(overrides={"t": ToolOverride(name="same"), "k": ToolOverride(description="kept")}),
        "y": WorkloadRules(overrides={"u": ToolOverride(name="same")}),
    }

    assert static_conflicts(AggregationSettings(workloads=rules)) == []
    (line,) = static_conflicts(AggregationSettings(strategy="manual", workloads=rules))
    assert "x.t and y.u are all renamed to 'same'" in line


def test_overrides_of_tools_that_are_not_offered_are_no_conflict() -> None:
    """Excluded or filtered out, they claim no name."""
    same = {"t": ToolOverride(name="same")}
    for hidden in (WorkloadRules(overrides=same, exclude_all_tools=True), WorkloadRules(("other",), same)):
        rules = {"x": hidden, "y": WorkloadRules(overrides=same)}
        how = AggregationSettings(strategy="manual", workloads=rules)
        assert static_conflicts(how) == []
        assert list(build_table({"x": catalog("t"), "y": catalog("t")}, how).tools) == ["same"]


def test_filters_are_globs_on_either_name() -> None:
    """An entry matches the backend's own name or the overridden one."""
    rules = WorkloadRules(
        tool_filter=("read_*", "renamed", "own"),
        overrides={"hidden": ToolOverride(name="renamed"), "own": ToolOverride(name="other")},
    )
    table = build_table(
        {"x": catalog("read_a", "read_b", "write", "hidden", "own", "READ_c")},
        AggregationSettings(workloads={"x": rules}),
    )

    assert set(table.tools) == {"x_read_a", "x_read_b", "x_renamed", "x_other"}


def test_exclusions() -> None:
    """Of one workload, or of all."""
    cats = {"x": catalog("t"), "y": catalog("t")}
    one = AggregationSettings(workloads={"x": WorkloadRules(exclude_all_tools=True)})

    assert set(build_table(cats, one).tools) == {"y_t"}
    assert build_table(cats, AggregationSettings(exclude_all_tools=True)).tools == {}


def test_overrides_replace_words_and_merge_annotations_and_leave_the_rest() -> None:
    """A3: unknown fields pass; the backend's own dict stays as it was."""
    original = tool(
        "t", description="old", annotations={"title": "T", "readOnlyHint": True}, **{"x-odd": [1, {"a": None}]}
    )
    rules = WorkloadRules(
        overrides={"t": ToolOverride(name="n", description="new", annotations={"title": "N", "extra": 1})}
    )
    table = build_table({"x": Catalog(tools=(original,))}, AggregationSettings(workloads={"x": rules}))

    assert table.tool("x_n").definition == {
        "name": "x_n",
        "inputSchema": {"type": "object"},
        "description": "new",
        "annotations": {"title": "N", "readOnlyHint": True, "extra": 1},
        "x-odd": [1, {"a": None}],
    }
    assert table.tool("x_n").definition["x-odd"] is original["x-odd"]
    assert original["description"] == "old"


def test_malformed_and_repeated_entries_are_skipped() -> None:
    """A broken entry of a backend does not break the list."""
    entries: tuple[dict[str, Any], ...] = ({}, {"name": 3}, {"name": ""}, tool("t", n=1), tool("t", n=2))
    table = build_table({"x": Catalog(tools=entries)}, AggregationSettings())

    assert [definition["n"] for definition in table.tool_definitions] == [1]


def test_prompts_are_named_like_tools_and_filtered() -> None:
    """The same strategy, a filter of their own."""
    cats = {name: Catalog(prompts=({"name": "p"}, {"name": "q"})) for name in ("x", "y")}
    how = AggregationSettings(workloads={"x": WorkloadRules(prompt_filter=("p",))})
    table = build_table(cats, how)

    assert list(table.prompts) == ["x_p", "y_p", "y_q"]
    assert table.prompt("y_q").original == "q"


RESOURCES = {
    name: Catalog(
        resources=({"uri": "file:///same", "name": name}, {"uri": f"file:///{name}", "x-odd": 1}),
        resource_templates=({"uriTemplate": "db://{table}/rows{?limit}"}, {"uriTemplate": f"{name}://{{id}}"}),
    )
    for name in ("x", "y")
}


def test_the_same_uri_on_two_backends_stays_readable_on_both() -> None:
    """The later one under the namespace of its backend; what it advertises can be mapped back."""
    table = build_table(RESOURCES, AggregationSettings())

    assert table.resource("file:///same") == Route("x", "file:///same", {"uri": "file:///same", "name": "x"})
    namespaced = table.resource("vmcp://y/file:///same")
    assert (namespaced.backend, namespaced.original) == ("y", "file:///same")
    assert namespaced.definition == {"uri": "vmcp://y/file:///same", "name": "y"}
    assert table.advertised_uri("y", "file:///same") == "vmcp://y/file:///same"
    assert table.advertised_uri("x", "file:///same") == "file:///same"
    assert table.advertised_uri("y", "file:///y") == "file:///y"
    assert [entry["uriTemplate"] for entry in table.resource_template_definitions] == [
        "db://{table}/rows{?limit}",
        "x://{id}",
        "vmcp://y/db://{table}/rows{?limit}",
        "y://{id}",
    ]


def test_unlisted_uris_find_their_backend_by_namespace_or_template() -> None:
    """And a URI that fits nothing is unknown when it could be anybody's."""
    table = build_table(RESOURCES, AggregationSettings())

    assert table.resource("y://7").backend == "y"
    assert table.resource("y://7").original == "y://7"
    assert table.resource("db://users/rows?limit=3").backend == "x"
    expanded = table.resource("vmcp://y/db://users/rows")
    assert (expanded.backend, expanded.original) == ("y", "db://users/rows")
    for unknown in ("z://1", "vmcp://nobody/file:///x", "vmcp://y", ""):
        with pytest.raises(UnknownResource, match="Resource not found"):
            table.resource(unknown)


def test_an_unlisted_uri_goes_to_the_only_backend_with_resources() -> None:
    """It may have more than it lists."""
    table = build_table({"x": RESOURCES["x"], "tools": catalog("t")}, AggregationSettings())

    assert table.resource("anything://here").backend == "x"


def test_resource_filters_match_uri_template_or_name() -> None:
    """Globs on what identifies them."""
    how = AggregationSettings(workloads={"x": WorkloadRules(resource_filter=("file:///x", "x://*"))})
    table = build_table({"x": RESOURCES["x"]}, how)

    assert list(table.resources) == ["file:///x"]
    assert list(table.resource_templates) == ["x://{id}"]


def test_completion_is_routed_by_its_reference_and_rewritten() -> None:
    """Prompt by name, resource by template or URI; anything else is a bad request."""
    cats = {"x": Catalog(prompts=({"name": "p"},)), "y": RESOURCES["y"]}
    table = build_table(cats, AggregationSettings())
    route, reference = table.completion({"type": "ref/prompt", "name": "x_p", "title": "P"})
    assert (route.backend, reference) == ("x", {"type": "ref/prompt", "name": "p", "title": "P"})
    route, reference = table.completion({"type": "ref/resource", "uri": "y://{id}"})
    assert (route.backend, reference) == ("y", {"type": "ref/resource", "uri": "y://{id}"})
    route, reference = table.completion({"type": "ref/resource", "uri": "file:///y"})
    assert (route.backend, reference["uri"]) == ("y", "file:///y")

    for malformed in (
        {},
        {"type": "ref/prompt"},
        {"type": "ref/resource", "uri": 3},
        {"type": "ref/other", "name": "p"},
    ):
        with pytest.raises(InvalidParams):
            table.completion(malformed)
    with pytest.raises(UnknownPrompt):
        table.completion({"type": "ref/prompt", "name": "p"})


def test_an_empty_table_knows_nothing_and_says_so() -> None:
    """The table of a session without backends."""
    table = RoutingTable()

    with pytest.raises(UnknownTool, match=r"^Unknown tool: t \(this session has no tools\)$"):
        table.tool("t")
    with pytest.raises(UnknownTool, match=r"^Unknown tool: t$"):
        build_table({"x": catalog("t")}, AggregationSettings()).tool("t")
    assert repr(table) == "<RoutingTable: 0 tools, 0 prompts, 0 resources, 0 templates, 0 conflicts settled>"
    assert table.statistics().resource_templates == 0


@pytest.mark.parametrize("template", ["{", "{}", "{a}{b}", "x://{+a}{+b}", "{" * 5000, "x://{a:3}"])
def test_templates_that_cannot_be_read_match_nothing(template: str) -> None:
    """A hostile backend gets no exception out of us."""
    assert not template_matches(template, "x://anything")


def test_what_a_resource_filter_leaves_out_cannot_be_read_either() -> None:
    """Not by its own URI, and not by way of the namespace; what it keeps can."""
    how = AggregationSettings(workloads={"x": WorkloadRules(resource_filter=("file:///x", "x://*"))})
    table = build_table({"x": RESOURCES["x"]}, how)

    for kept in ("file:///x", "vmcp://x/file:///x", "x://7", "vmcp://x/x://7"):
        assert table.resource(kept).backend == "x"
    for left_out in ("file:///same", "vmcp://x/file:///same", "db://t/rows", "vmcp://x/db://t/rows", "other://1"):
        with pytest.raises(UnknownResource):
            table.resource(left_out)
