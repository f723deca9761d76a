// The TypeScript SDK v1 over streamable HTTP: node v1.mjs URL, with PACKAGES naming the node_modules folder.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { recorder, run } from "./session.mjs";

const require = createRequire(`${process.env.PACKAGES}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");

const { requests, fetch } = recorder();
const client = new Client({ name: "typescript-v1", version: "1" });
const transport = new StreamableHTTPClientTransport(new URL(process.argv[2]), { fetch });
await run(client, transport, requests, (call, onprogress) => client.callTool(call, undefined, { onprogress }));
