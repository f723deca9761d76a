"""`docs/reference/configuration.md` is true: its example loads, every key is in it, and the defaults are so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest

from vmcp_actors.config import load_config, parse_config, schema
from vmcp_actors.config.durations import format_duration
from vmcp_actors.config.problems import camel
from vmcp_actors.config.toolhive import AUTH_KEYS, IGNORED
from vmcp_actors.settings import (
    AggregationSettings,
    BreakerSettings,
    HealthSettings,
    ServerSettings,
    SessionSettings,
    StatelessSettings,
)

REFERENCE = Path(__file__).parents[2].joinpath("docs", "reference", "configuration.md").read_text()
EXAMPLE = re.findall(r"```yaml\n(.*?)```", REFERENCE, re.DOTALL)[0]


def table(heading: str) -> dict[str, str]:
    """Key to default, of the section under a heading."""
    section = REFERENCE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return {
        row[0]: row[1].strip("`") for row in re.findall(r"^\| `(\S+)` \|[^|]*\| *([^|]*?) *\|", section, re.MULTILINE)
    }


def test_the_example_loads(tmp_path: Path) -> None:
    path = tmp_path / "vmcp.yaml"
    path.write_text(EXAMPLE)
    config = load_config(path, {"DOCS_TOKEN": "t"})
    assert [backend.name for backend in config.backends] == ["docs", "legacy", "time"]
    assert [backend.call_timeout for backend in config.backends] == [60.0, 120.0, 60.0]
    assert config.sessions == SessionSettings()
    assert config.stateless == StatelessSettings()
    assert config.health == HealthSettings(breaker=BreakerSettings(enabled=True))
    assert attrs.evolve(config.server, allowed_origins=(), allowed_hosts=()) == ServerSettings()
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("heading", "class_", "settings"),
    [
        ("`sessions`", schema.Sessions, SessionSettings()),
        ("`stateless`", schema.Stateless, StatelessSettings()),
        ("`server`", schema.Server, ServerSettings()),
    ],
)
def test_the_tables_have_the_keys_and_the_defaults(heading: str, class_: Any, settings: Any) -> None:
    documented = table(heading)
    assert list(documented) == [camel(attribute.name) for attribute in attrs.fields(class_)]
    for attribute in attrs.fields(class_):
        default = getattr(settings, attribute.name)
        if not isinstance(default, tuple):
            text = format_duration(default) if isinstance(default, float) else str(default)
            assert documented[camel(attribute.name)] == text


def test_every_key_of_the_other_sections_is_in_the_reference() -> None:
    assert set(table("Top level")) == {camel(a.name) for a in attrs.fields(schema.File)} | set(AUTH_KEYS[:2])
    assert set(table("`backends[]`")) == {camel(attribute.name) for attribute in attrs.fields(schema.Backend)}
    tools = {f"tools[].{camel(attribute.name)}" for attribute in attrs.fields(schema.ToolRules)}
    config = {f"conflictResolutionConfig.{camel(a.name)}" for a in attrs.fields(schema.ConflictResolution)}
    plain = {camel(attribute.name) for attribute in attrs.fields(schema.Aggregation)}
    lists = {"tools", "resources", "prompts"}
    expected = plain - lists - {"conflictResolutionConfig"} | {f"{name}[]" for name in lists} | tools | config
    assert set(table("`aggregation`")) == expected
    assert table("`aggregation`")["conflictResolutionConfig.prefixFormat"] == AggregationSettings().prefix_format
    timeouts = {f"timeouts.{camel(a.name)}" for a in attrs.fields(schema.Timeouts)}
    failures = {f"failureHandling.{camel(a.name)}" for a in attrs.fields(schema.FailureHandling)}
    breaker = {f"failureHandling.circuitBreaker.{camel(a.name)}" for a in attrs.fields(schema.CircuitBreaker)}
    assert set(table("`operational`")) == timeouts | failures - {"failureHandling.circuitBreaker"} | breaker


def test_the_defaults_of_failure_handling_are_so() -> None:
    documented, settings = table("`operational`"), HealthSettings()
    assert documented["failureHandling.healthCheckInterval"] == format_duration(settings.check_interval)
    assert documented["failureHandling.healthCheckTimeout"] == format_duration(settings.check_timeout)
    assert documented["failureHandling.unhealthyThreshold"] == str(settings.unhealthy_threshold)
    assert documented["failureHandling.partialFailureMode"] == settings.partial_failure_mode
    assert documented["failureHandling.circuitBreaker.enabled"] == str(settings.breaker.enabled).lower()
    assert documented["failureHandling.circuitBreaker.failureThreshold"] == str(settings.breaker.failure_threshold)
    assert documented["failureHandling.circuitBreaker.timeout"] == format_duration(settings.breaker.timeout)


def test_every_ignored_key_is_in_the_reference() -> None:
    for place, keys in IGNORED.items():
        prefix = ".".join(str(step) for step in place).replace(".*", "[]")
        assert all(f"`{prefix}.{key}`" in REFERENCE or (not prefix and f"`{key}`" in REFERENCE) for key in keys)


def test_the_example_has_every_section_and_transport() -> None:
    for attribute in attrs.fields(schema.File):
        assert attribute.name == "group_ref" or f"\n{camel(attribute.name)}:" in f"\n{EXAMPLE}"
    for transport in get_args(schema.TransportName):
        assert f"transport: {transport}\n" in EXAMPLE


def test_the_example_is_ours_alone() -> None:
    text = EXAMPLE.replace("name: team", "name: team\ncolour: red")
    with pytest.raises(Exception, match=r"^colour: unknown key \(in vmcp.yaml\)$"):
        parse_config(text, source="vmcp.yaml", environ={"DOCS_TOKEN": "t"})
