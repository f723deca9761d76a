// The TypeScript SDK v2, which probes for the stateless revision first: node v2.mjs URL, PACKAGES as in v1.mjs.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { report, work } from "./session.mjs";

const require = createRequire(`${process.env.PACKAGES}/`);
const module = require.resolve("@modelcontextprotocol/client").replace(/\.cjs$/, ".mjs");
const { Client, StreamableHTTPClientTransport } = await import(pathToFileURL(module));

const client = new Client(
  { name: "typescript-v2", version: "1" },
  { versionNegotiation: { mode: "auto" } },
);
const transport = new StreamableHTTPClientTransport(new URL(process.argv[2]));
await client.connect(transport);
const result = await work(client);
const progress = [];
await client.callTool(
  { name: "clock_countdown", arguments: { seconds: 0.2, step: 0.1 } },
  { onprogress: (notice) => progress.push(notice.progress) },
);
await transport.terminateSession();
await client.close();
report(result, progress);
