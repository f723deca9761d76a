// What both SDKs do with the demo backends: a transaction over several calls, progress, and an end. Prints JSON.
export async function run(client, transport, requests, countdown) {
  await client.connect(transport);
  const { tools } = await client.listTools();
  const call = async (name, args = {}) => (await client.callTool({ name, arguments: args })).structuredContent;
  await call("notes_begin");
  await call("notes_add", { text: "draft" });
  const pending = await call("notes_list");
  await call("notes_rollback");
  const after = await call("notes_list");
  const progress = [];
  await countdown({ name: "clock_countdown", arguments: { seconds: 0.2, step: 0.1 } }, (notice) =>
    progress.push(notice.progress),
  );

  const session = transport.sessionId ?? null;
  await transport.terminateSession();
  await client.close();
  const names = tools.map((tool) => tool.name);
  console.log(JSON.stringify({ tools: names, pending, after, progress, session, requests }));
}

// A fetch that keeps what was asked and answered: the HTTP method, the JSON-RPC method, the session, the status, and
// the seconds at which it was asked and answered.
export function recorder() {
  const requests = [];
  const began = Date.now();
  const seconds = () => (Date.now() - began) / 1000;
  const recorded = async (url, init = {}) => {
    const request = {
      http: init.method ?? "GET",
      rpc: init.body ? (JSON.parse(init.body).method ?? null) : null,
      session: new Headers(init.headers).get("mcp-session-id"),
      asked: seconds(),
    };
    requests.push(request);
    const response = await fetch(url, init);
    request.status = response.status;
    request.answered = seconds();
    return response;
  };
  return { requests, fetch: recorded };
}
