// npm's @modelcontextprotocol/sdk 1.x: Streamable HTTP with sessions, and HTTP+SSE. See ../contract.py.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ElicitRequestSchema, LoggingMessageNotificationSchema } from '@modelcontextprotocol/sdk/types.js';

import { elicitation, options, run, transportOptions, use } from './contract.mjs';

async function visit(chosen, report) {
  const Transport = chosen.mode === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
  const transport = new Transport(chosen.url, transportOptions(chosen, report));
  const capabilities = chosen.elicit ? { elicitation: {} } : {};
  const client = new Client({ name: 'test-node-sdk1', version: '1' }, { capabilities });
  client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => { report.logs.push(params); });
  if (chosen.elicit) {
    client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
      report.elicitations.push(params);
      return elicitation(chosen);
    });
  }
  let version = null;
  transport.setProtocolVersion = ((set) => (given) => { version = given; set?.call(transport, given); })(transport.setProtocolVersion);
  await client.connect(transport);
  report.protocol_version = version;
  if (chosen.logLevel) await client.setLoggingLevel(chosen.logLevel);
  await use(chosen, report, client, (how) => client.callTool({ name: chosen.call, arguments: chosen.args }, undefined, how));
  await client.close();
}

await run(visit, options('node-sdk1', ['session', 'sse']));
