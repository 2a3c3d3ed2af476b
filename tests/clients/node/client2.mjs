// npm's @modelcontextprotocol/client 2.x: 2026-07-28, sessions of 2025, HTTP+SSE, or what it negotiates. See ../contract.py.

import { Client, LOG_LEVEL_META_KEY, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

import { elicitation, options, run, transportOptions, use } from './contract.mjs';

const NEGOTIATION = { auto: 'auto', modern: { pin: '2026-07-28' }, session: 'legacy', sse: 'legacy' };

async function visit(chosen, report) {
  const Transport = chosen.mode === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
  const transport = new Transport(chosen.url, transportOptions(chosen, report));
  const client = new Client({ name: 'test-node-client2', version: '1' }, {
    capabilities: chosen.elicit ? { elicitation: {} } : {},
    versionNegotiation: { mode: NEGOTIATION[chosen.mode] },
  });
  client.setNotificationHandler('notifications/message', ({ params }) => { report.logs.push(params); });
  if (chosen.elicit) {
    client.setRequestHandler('elicitation/create', ({ params }) => {
      report.elicitations.push(params);
      return elicitation(chosen);
    });
  }
  await client.connect(transport);
  report.protocol_version = client.getNegotiatedProtocolVersion() ?? null;
  const modern = report.protocol_version >= '2026';
  if (chosen.logLevel && !modern) await client.setLoggingLevel(chosen.logLevel);
  const asked = chosen.logLevel && modern ? { _meta: { [LOG_LEVEL_META_KEY]: chosen.logLevel } } : {};
  await use(chosen, report, client, (how) => client.callTool({ name: chosen.call, arguments: chosen.args, ...asked }, how));
  await client.close();
}

await run(visit, options('node-client2', ['auto', 'modern', 'session', 'sse']));
