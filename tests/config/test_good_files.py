"""Files as ToolHive, Claude Desktop, Cursor and VS Code write them, and our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmcp_actors.auth import HeadersFrom, HeaderSource, RenewingAuthorizer
from vmcp_actors.config import Config, backends_only, import_client_config, load_config, parse_config, to_yaml
from vmcp_actors.errors import ConfigError
from vmcp_actors.model import BackendSpec, HttpEndpoint, Secret, StdioCommand
from vmcp_actors.settings import (
    AggregationSettings,
    BreakerSettings,
    HealthSettings,
    ServerSettings,
    SessionSettings,
    ToolOverride,
    WorkloadRules,
)

GOOD = Path(__file__).parent / "files" / "good"
ENVIRON = {
    "LINEAR_TOKEN": "lin-1",
    "GITHUB_TOKEN": "ghp-1",
    "TIME_TOKEN": "t-1",
    "DOCS_KEY": "d-1",
    "PORT": "8080",
    "TZ_NAME": "",
    "HIDE": "True",
}
MINIMAL = "backends: [{name: a, url: 'http://a/mcp', transport: sse}]\n"


def load(name: str) -> Config:
    return load_config(GOOD / name, ENVIRON)


def test_toolhive() -> None:
    config = load("toolhive.yaml")
    assert config.name == "engineering-vmcp"
    assert config.backends == (
        BackendSpec("github", HttpEndpoint("http://localhost:8080/mcp"), 45.0, 5.0),
        BackendSpec("jira", HttpEndpoint("https://jira.internal:8443/sse", "sse"), 90.0, 5.0),
    )
    override = ToolOverride("open_pull_request", "Opens a pull request.", {"readOnlyHint": False, "title": "Open"})
    assert config.aggregation == AggregationSettings(
        strategy="priority",
        prefix_format="{workload}.",
        priority_order=("github", "jira"),
        workloads={
            "github": WorkloadRules(("create_pr", "list_*"), {"create_pr": override}),
            "jira": WorkloadRules(exclude_all_tools=True),
        },
    )
    assert config.warnings == (
        "ignored, since nothing here reads them yet: telemetry, compositeTools, metadata, operational.logLevel, "
        "operational.failureHandling.statusReportingInterval, aggregation.tools[1].toolConfigRef, "
        "backends[0].metadata",
    )
    assert config.health == HealthSettings(
        check_interval=20.0,
        unhealthy_threshold=2,
        partial_failure_mode="fail",
        breaker=BreakerSettings(enabled=True, failure_threshold=7, timeout=90.0),
    )
    assert config.source == str(GOOD / "toolhive.yaml")


def test_ours() -> None:
    config = load("ours.yaml")
    assert config.backends == (
        BackendSpec(
            "time",
            StdioCommand(
                "mcp-server-time",
                ("--local-timezone", "UTC"),
                {"TOKEN": Secret("t-1"), "DEBUG": Secret("on"), "PRICE": Secret("${NOT_A_VARIABLE}")},
                "/srv/time",
            ),
            60.0,
            30.0,
        ),
        BackendSpec(
            "docs", HttpEndpoint("https://docs.example.com/mcp?tenant=7", headers={"X-Api-Key": Secret("d-1")})
        ),
    )
    assert config.aggregation.exclude_all_tools
    assert config.aggregation.workloads == {
        "time": WorkloadRules(exclude_all_tools=True, resource_filter=("time://*",)),
        "docs": WorkloadRules(overrides={"search": ToolOverride("search_docs")}, prompt_filter=("help",)),
    }
    assert config.sessions == SessionSettings(
        ttl=3600.0,
        idle_timeout=600.0,
        ready_timeout=0.5,
        drain_timeout=0.0,
        max_sessions=50,
        max_per_client=5,
        backend_init_concurrency=4,
        global_backend_init_concurrency=40,
    )
    assert config.server == ServerSettings(
        host="0.0.0.0",
        port=8080,
        path="/",
        max_body_bytes=1048576,
        allowed_origins=("https://app.example.com", "*"),
        allowed_hosts=("gateway.example.com:4483", "[::1]"),
    )
    assert config.warnings == ()


def test_claude_desktop() -> None:
    config = load("claude_desktop_config.json")
    args = ("-y", "@modelcontextprotocol/server-filesystem", "/home/ada")
    env = {"LOG_LEVEL": Secret("debug"), "TOKEN": Secret("none")}
    assert config.backends == (
        BackendSpec("filesystem", StdioCommand("npx", args, env), 60.0, 30.0),
        BackendSpec("My-Notes", StdioCommand("notes"), 60.0, 30.0),
    )
    assert config.warnings == (
        'ignored, since nothing here reads them: globalShortcut, mcpServers["My Notes"].autoApprove',
        'mcpServers["My Notes"] is called My-Notes here',
    )


def test_cursor() -> None:
    config = load("cursor_mcp.json")
    headers = {"Authorization": Secret("Bearer lin-1")}
    assert config.backends == (
        BackendSpec("linear", HttpEndpoint("https://mcp.linear.app/sse", "sse", headers)),
        BackendSpec("docs", HttpEndpoint("https://docs.example.com/mcp")),
        BackendSpec("local", StdioCommand("python", ("server.py",), {}, "/srv"), 60.0, 30.0),
    )
    assert config.warnings == ("ignored, since nothing here reads them: mcpServers.local.envFile",)


def test_vs_code() -> None:
    config = load("vscode_mcp.json")
    headers = {"Authorization": Secret("Bearer ghp-1")}
    assert config.backends == (
        BackendSpec("github", HttpEndpoint("https://api.githubcopilot.com/mcp/", headers=headers)),
        BackendSpec("legacy", HttpEndpoint("http://127.0.0.1:9000/events", "sse")),
        BackendSpec("playwright", StdioCommand("npx", ("@playwright/mcp@latest",)), 60.0, 30.0),
    )
    assert config.warnings == ("ignored, since nothing here reads them: inputs, servers.playwright.dev",)


@pytest.mark.parametrize("name", [file.name for file in GOOD.iterdir()])
def test_secrets_are_not_in_the_repr(name: str) -> None:
    shown = repr(load(name))
    assert not any(value in shown for key, value in ENVIRON.items() if key.endswith(("TOKEN", "KEY")))


@pytest.mark.parametrize("name", ["claude_desktop_config.json", "cursor_mcp.json", "vscode_mcp.json"])
def test_an_imported_file_is_the_same_configuration(name: str) -> None:
    text = import_client_config((GOOD / name).read_text(), name)
    config = parse_config(text, source="vmcp.yaml", environ=ENVIRON)
    assert config.backends == load(name).backends
    assert text.startswith(f"# Made from {name} by `vmcp-actors init`.\n# ignored")
    assert not any(token in text for token in ("lin-1", "ghp-1"))


def test_an_imported_file_keeps_its_placeholders() -> None:
    text = '{"mcpServers": {"a": {"url": "${BASE}/mcp", "headers": {"K": "${env:T}"}}, "语": {"command": "yes"}}}'
    imported = import_client_config(text, "mcp.json")
    assert "${BASE}/mcp" in imported
    assert "${env:T}" in imported
    config = parse_config(imported, source="vmcp.yaml", environ={"BASE": "http://b", "T": "t"})
    assert [backend.name for backend in config.backends] == ["a", "server-2"]


def test_a_broken_file_is_not_imported() -> None:
    with pytest.raises(ConfigError) as caught:
        import_client_config('{"mcpServers": {"a": {"url": "${X}", "type": "ws"}, "b": 1}}', "mcp.json")
    assert caught.value.problems == (
        "mcpServers.a.type: expected streamable-http, sse or stdio, got 'ws' (in mcp.json)",
        "mcpServers.b: expected a mapping, got a number (in mcp.json)",
    )


@pytest.mark.parametrize("text", ["{}", "[]", '{"backends": []}'])
def test_only_the_files_of_clients_are_imported(text: str) -> None:
    with pytest.raises(ConfigError, match="expected mcpServers or servers"):
        import_client_config(text, "mcp.json")


def test_sections_without_a_value_are_like_sections_that_are_not_there() -> None:
    config = parse_config(f"{MINIMAL}name:\nsessions:\naggregation:\nincomingAuth:\n", source="vmcp.yaml")
    assert config == parse_config(MINIMAL, source="vmcp.yaml")
    assert config.name == "vmcp"


@pytest.mark.parametrize(
    "url", ["http://[::1]:8/mcp", "HTTPS://h", "http://a_b.internal/x?y#z", "http://bücher.example"]
)
def test_urls(url: str) -> None:
    config = parse_config(MINIMAL.replace("http://a/mcp", url), source="vmcp.yaml")
    assert config.backends[0].endpoint == HttpEndpoint(url, "sse")


def test_one_backend_needs_no_priority_order() -> None:
    config = parse_config(f"{MINIMAL}aggregation: {{conflictResolution: priority}}", source="vmcp.yaml")
    assert config.aggregation.priority_order == ()


def test_an_empty_prefix_format_is_the_default_as_in_toolhive() -> None:
    text = f'{MINIMAL}aggregation: {{conflictResolutionConfig: {{prefixFormat: ""}}}}'
    assert parse_config(text, source="vmcp.yaml").aggregation.prefix_format == "{workload}_"


def test_discovered_is_accepted_where_backends_are_listed() -> None:
    text = f"{MINIMAL}outgoingAuth: {{source: discovered, backends: }}\ncodeMode: {{}}"
    assert len(parse_config(text, source="vmcp.yaml").backends) == 1


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ('{"backends": [{"name": "a", "url": "http://a/mcp", "transport": "sse"}]}', "vmcp"),
        ("{backends: [{name: a, url: 'http://a/mcp', transport: sse}]}", "vmcp.yml"),
        ("// ours\n" + '{"backends": [{"name": "a", "url": "http://a/mcp", "transport": "sse"},]}', "x.jsonc"),
        (MINIMAL, "<stdin>"),
    ],
)
def test_the_format_is_found(text: str, source: str) -> None:
    assert parse_config(text, source=source).backends == (BackendSpec("a", HttpEndpoint("http://a/mcp", "sse")),)


def test_yaml_anchors_and_merges_and_numbers() -> None:
    text = """
backends:
  - &first {name: a, url: "http://a/mcp", transport: sse}
  - {<<: *first, name: b}
server: {port: 0x50, maxBodyBytes: 0o17}
aggregation: {tools: [{workload: b, overrides: {t: {annotations: {a: 1.5e3, b: [x, ~], c: 010, d: no}}}}]}
"""
    config = parse_config(text, source="vmcp.yaml")
    assert [backend.name for backend in config.backends] == ["a", "b"]
    assert (config.server.port, config.server.max_body_bytes) == (80, 15)
    annotations = config.aggregation.workloads["b"].overrides["t"].annotations
    assert annotations == {"a": 1500.0, "b": ["x", None], "c": 10, "d": "no"}


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMCP_TEST_URL", "http://a/mcp")
    text = MINIMAL.replace("http://a/mcp", "${VMCP_TEST_URL}")
    assert parse_config(text, source="vmcp.yaml") == parse_config(MINIMAL, source="vmcp.yaml")


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "vmcp.yaml"
    path.write_text(MINIMAL, encoding="utf-8-sig")
    assert load_config(path).backends


def test_backends_only() -> None:
    spec = BackendSpec("a", StdioCommand("x"))
    config = backends_only([spec], sessions=SessionSettings(ttl=1.0))
    assert config == Config(backends=(spec,), sessions=SessionSettings(ttl=1.0))
    assert backends_only([]).backends == ()


def test_yaml_that_we_write_has_no_anchors() -> None:
    shared = ["x"]
    assert to_yaml({"a": shared, "b": shared}) == "a:\n- x\nb:\n- x\n"


def test_header_injection_is_for_the_backends_that_it_names() -> None:
    text = """
outgoingAuth:
  default: {type: header_injection, headerInjection: {headerName: X-Key, headerValue: "${KEY}"}}
  backends:
    b: {type: header_injection, headerInjection: {headerName: Authorization, headerValueEnv: TOKEN}}
    c: {type: header_injection, headerInjection: {headerName: Authorization, headerValueFile: /run/token}}
    d: {type: unauthenticated}
backends:
  - {name: a, transport: streamable-http, url: "http://h/a", headers: {Y: z}}
  - {name: b, transport: streamable-http, url: "http://h/b", headersFrom: {Y: {env: Z}}}
  - {name: c, transport: sse, url: "http://h/c"}
  - {name: d, transport: sse, url: "http://h/d"}
  - {name: e, transport: stdio, command: x}
"""
    a, b, c, d, e = parse_config(text, source="x.yaml", environ={"KEY": "k"}).backends
    assert a.endpoint == HttpEndpoint("http://h/a", headers={"Y": Secret("z"), "X-Key": Secret("k")})
    sources = {"Y": HeaderSource(variable="Z"), "Authorization": HeaderSource(variable="TOKEN")}
    assert b.endpoint == HttpEndpoint("http://h/b", authorizer=RenewingAuthorizer(HeadersFrom(sources)))
    sources = {"Authorization": HeaderSource(file="/run/token")}
    assert c.endpoint == HttpEndpoint("http://h/c", "sse", authorizer=RenewingAuthorizer(HeadersFrom(sources)))
    assert d.endpoint == HttpEndpoint("http://h/d", "sse")
    assert e.endpoint == StdioCommand("x")
