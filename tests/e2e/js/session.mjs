// What both SDKs do with the demo backends: a transaction over several calls, and progress.
export async function work(client) {
  const began = Date.now();
  const { tools } = await client.listTools();
  const call = async (name, args = {}) => (await client.callTool({ name, arguments: args })).structuredContent;
  await call("notes_begin");
  await call("notes_add", { text: "draft" });
  const pending = await call("notes_list");
  await call("notes_rollback");
  const after = await call("notes_list");
  return { tools: tools.map((tool) => tool.name), pending, after, began };
}

export function report(result, progress) {
  const { began, ...rest } = result;
  console.log(JSON.stringify({ ...rest, progress, seconds: (Date.now() - began) / 1000 }));
}
