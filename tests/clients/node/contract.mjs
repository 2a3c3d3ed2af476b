// What the two Node clients share: the arguments, the report and the order of a visit. The same contract as
// ../contract.py, which describes it; only what differs between the SDKs is in the scripts themselves.

import { parseArgs } from 'node:util';

const METHOD_NOT_FOUND = -32601;
const ALIVE_TIMEOUT_MS = 5000;

export function options(client, modes) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      mode: { type: 'string' }, header: { type: 'string', default: 'authorization' },
      call: { type: 'string' }, args: { type: 'string', default: '{}' }, 'cancel-after': { type: 'string' },
      also: { type: 'string', multiple: true, default: [] },
      prompt: { type: 'string' }, 'prompt-args': { type: 'string', default: '{}' }, read: { type: 'string' },
      complete: { type: 'string', multiple: true }, 'log-level': { type: 'string' }, elicit: { type: 'string' },
      'no-lists': { type: 'boolean' }, full: { type: 'boolean' }, timeout: { type: 'string', default: '30' },
    },
  });
  // `--complete REF ARGUMENT VALUE` as argparse reads it: the last two follow the positionals of this parser.
  const complete = values.complete && [values.complete[0], ...positionals.splice(-2)];
  const [url, key, third] = positionals;
  const mode = values.mode ?? third ?? modes[0];
  if (!url || key === undefined) finish({ ok: false, error: 'usage: URL KEY [MODE]' }, 2);
  if (!modes.includes(mode)) finish({ ok: false, error: `${client} has no mode ${mode}`, modes }, 2);
  return { ...values, complete, client, url: new URL(url), key, mode, args: JSON.parse(values.args),
    promptArgs: JSON.parse(values['prompt-args']), cancelAfter: values['cancel-after'], logLevel: values['log-level'] };
}

export function newReport(chosen) {
  const lists = Object.fromEntries(
    ['tools', 'prompts', 'resources', 'templates', 'also', 'progress', 'logs', 'elicitations'].map((name) => [name, []]));
  return { ok: false, client: chosen.client, mode: chosen.mode, protocol_version: null, server: null, call: null,
    prompt: null, read: null, complete: null, error: null, code: null, status: null, cancelled: false, ...lists };
}

export function transportOptions(chosen, report) {
  const headers = !chosen.key ? {}
    : chosen.header === 'x-api-key' ? { 'X-API-Key': chosen.key } : { Authorization: `Bearer ${chosen.key}` };
  const watched = async (input, init) => {
    const response = await fetch(input, init);
    if (response.status >= 400 && init?.method !== 'DELETE') report.status = response.status;
    return response;
  };
  return { requestInit: { headers }, fetch: watched };
}

export function elicitation(chosen) {
  return ['decline', 'cancel'].includes(chosen.elicit)
    ? { action: chosen.elicit } : { action: 'accept', content: JSON.parse(chosen.elicit) };
}

// `visit` gets (chosen, report) and a signal-free world: the deadline ends the process, whatever still runs in it.
export async function run(visit, chosen) {
  const report = newReport(chosen);
  const deadline = setTimeout(() => finish({ ...report, error: `not done within ${chosen.timeout} s` }),
    Number(chosen.timeout) * 1000);
  try {
    await visit(chosen, report);
    Object.assign(report, { ok: true, status: null });
  } catch (raised) {
    report.error = `${raised?.constructor?.name}: ${raised?.message ?? raised}`;
    report.code = typeof raised?.code === 'number' ? raised.code : null;
  }
  clearTimeout(deadline);
  finish(report);
}

function finish(document, exitCode = document.ok ? 0 : 1) {
  process.stdout.write(`${JSON.stringify(document)}\n`, () => process.exit(exitCode));
}

async function every(fetchPage, key) {
  const found = [];
  let cursor;
  do {
    let page;
    try {
      page = await fetchPage(cursor ? { cursor } : undefined);
    } catch (refused) {
      if (refused?.code === METHOD_NOT_FOUND && !cursor) return [];
      throw refused;
    }
    found.push(...page[key]);
    cursor = page.nextCursor;
  } while (cursor);
  return found;
}

// A server without a capability has an empty list; the 1.x client would refuse to ask, the 2.x client answers itself.
export async function listEverything(chosen, report, client) {
  const able = client.getServerCapabilities() ?? {};
  const raw = {
    tools: await every((page) => client.listTools(page), 'tools'),
    prompts: able.prompts ? await every((page) => client.listPrompts(page), 'prompts') : [],
    resources: able.resources ? await every((page) => client.listResources(page), 'resources') : [],
    templates: able.resources ? await every((page) => client.listResourceTemplates(page), 'resourceTemplates') : [],
  };
  const namedBy = { tools: 'name', prompts: 'name', resources: 'uri', templates: 'uriTemplate' };
  for (const [kind, entries] of Object.entries(raw)) report[kind] = entries.map((entry) => entry[namedBy[kind]]);
  report.status = null; // a 405 for the optional GET stream, a 400 while probing: not what the test is after
  if (chosen.full) report.raw = raw;
}

export async function use(chosen, report, client, callTool) {
  const asks = chosen.call || chosen.prompt || chosen.read || chosen.complete;
  if (!chosen['no-lists'] || !asks) await listEverything(chosen, report, client);
  if (chosen.call) await call(chosen, report, client, callTool);
  await callOthers(chosen, report, client, callTool);
  if (chosen.prompt) report.prompt = await client.getPrompt({ name: chosen.prompt, arguments: chosen.promptArgs });
  if (chosen.read) report.read = await client.readResource({ uri: chosen.read });
  if (chosen.complete) {
    const [reference, name, value] = chosen.complete;
    const ref = reference.includes('{') ? { type: 'ref/resource', uri: reference } : { type: 'ref/prompt', name: reference };
    report.complete = await client.complete({ ref, argument: { name, value } });
  }
  report.server = client.getServerVersion() ?? null;
}

async function call(chosen, report, client, callTool) {
  const stop = new AbortController();
  const timer = chosen.cancelAfter && setTimeout(() => stop.abort('the test said so'), Number(chosen.cancelAfter) * 1000);
  try {
    report.call = await callTool({ signal: stop.signal, timeout: Number(chosen.timeout) * 1000,
      onprogress: ({ progress, total = null, message = null }) => report.progress.push({ progress, total, message }) });
  } catch (raised) {
    if (!stop.signal.aborted) throw raised;
    report.cancelled = true;
    await client.listTools(undefined, { timeout: ALIVE_TIMEOUT_MS }); // a cancelled call must leave the connection usable
  } finally {
    clearTimeout(timer);
  }
}

// The calls of `--also`, each with what is done for the first one.
async function callOthers(chosen, report, client, callTool) {
  const first = report.call;
  for (const other of chosen.also.map((given) => JSON.parse(given))) {
    Object.assign(chosen, { call: other.name, args: other.arguments });
    await call(chosen, report, client, callTool);
    report.also.push(report.call);
  }
  report.call = first;
}
