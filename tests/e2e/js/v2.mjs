// The TypeScript SDK v2: node v2.mjs URL MODE, PACKAGES as in v1.mjs. MODE is `default`, which never probes, `auto`,
// which probes for the stateless revision first, or a revision, which it insists on.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { recorder, run } from "./session.mjs";

const require = createRequire(`${process.env.PACKAGES}/`);
const module = require.resolve("@modelcontextprotocol/client").replace(/\.cjs$/, ".mjs");
const { Client, StreamableHTTPClientTransport } = await import(pathToFileURL(module));

const [, , url, mode] = process.argv;
const options = mode === "default" ? {} : { versionNegotiation: { mode: mode === "auto" ? mode : { pin: mode } } };
const { requests, fetch } = recorder();
const client = new Client({ name: "typescript-v2", version: "1" }, options);
const transport = new StreamableHTTPClientTransport(new URL(url), { fetch });
await run(client, transport, requests, (call, onprogress) => client.callTool(call, { onprogress }));
