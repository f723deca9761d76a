// The TypeScript SDK v1 over streamable HTTP: node v1.mjs URL, with PACKAGES naming the node_modules folder.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { report, work } from "./session.mjs";

const require = createRequire(`${process.env.PACKAGES}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");

const client = new Client({ name: "typescript-v1", version: "1" });
const transport = new StreamableHTTPClientTransport(new URL(process.argv[2]));
await client.connect(transport);
const result = await work(client);
const progress = [];
await client.callTool({ name: "clock_countdown", arguments: { seconds: 0.2, step: 0.1 } }, undefined, {
  onprogress: (notice) => progress.push(notice.progress),
});
await transport.terminateSession();
await client.close();
report(result, progress);
