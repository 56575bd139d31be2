/** Clients of every kind, good and bad, that come and go as they like: what a server must stand without keeping any of it. */

import { request as httpRequest } from 'node:http';

import WebSocket from 'ws';

/** A small generator with a seed, so that a run can be repeated. Yields 0..1. */
export function randomOf(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const ADD = {
  name: 'add',
  description: 'Adds two numbers.',
  parameters: { type: 'object', properties: { a: { type: 'integer' }, b: { type: 'integer' } }, required: ['a', 'b'] },
};
const chatTool = { type: 'function', function: ADD };
const responseTool = { type: 'function', ...ADD };
const schema = {
  type: 'object',
  properties: { ok: { type: 'boolean' } },
  required: ['ok'],
  additionalProperties: false,
};

/** One entry per kind of client: its path and body. `stream` goes in where the endpoint knows it. */
const KINDS = [
  ['/v1/chat/completions', (ask) => ({ ...ask.chat })],
  ['/v1/chat/completions', (ask) => ({ ...ask.chat, n: 2, temperature: 1, logprobs: true, top_logprobs: 3 })],
  ['/v1/chat/completions', (ask) => ({ ...ask.chat, tools: [chatTool] })],
  ['/v1/chat/completions', (ask) => ({ ...ask.chat, tools: [chatTool], tool_choice: 'required', max_tokens: 40 })],
  [
    '/v1/chat/completions',
    (ask) => ({
      ...ask.chat,
      response_format: { type: 'json_schema', json_schema: { name: 'x', schema, strict: true } },
    }),
  ],
  ['/v1/completions', (ask) => ({ prompt: [ask.text, 'Once upon a time'], max_tokens: ask.tokens })],
  ['/v1/responses', (ask) => ({ ...ask.response })],
  ['/v1/responses', (ask) => ({ ...ask.response, store: false, instructions: 'Be brief.' })],
  [
    '/v1/responses',
    (ask) => ({ ...ask.response, tools: [responseTool], tool_choice: 'required', max_output_tokens: 40 }),
  ],
  ['/v1/responses', (ask) => ({ ...ask.response, background: true, stream: false })],
  ['/v1/responses/input_tokens', (ask) => ({ input: ask.text })],
  ['/v1/responses/compact', (ask) => ({ input: [{ role: 'user', content: ask.text }] })],
  ['/v1/conversations', (ask) => ({ items: [{ type: 'message', role: 'user', content: ask.text }] })],
  ['/v1/chat/completions', () => ({ messages: 'none', max_tokens: -1 })],
  ['/v1/responses', () => ({ input: [{ type: 'function_call_output', call_id: 'nobody', output: 7 }] })],
  ['/v1/completions', () => ({ prompt: 'word '.repeat(20_000) })],
  ['/v1/chat/completions', () => ({ messages: [{ role: 'user', content: 'x' }], tools: [{ type: 'function' }] })],
];

/**
 * Runs `clients` of them against a server, `together` at a time. Each goes its own way or leaves at a random moment.
 * @param options.onAnswer called with the status and the text of each answer that came to its end
 * @returns how they ended: `whole`, `refused` (4xx), `aborted`, and `sockets` of the WebSocket kind
 */
export async function runMixedClients(url, { clients, together = 40, seed = 1, model, onAnswer }) {
  const random = randomOf(seed);
  const ends = { whole: 0, refused: 0, aborted: 0, sockets: 0 };
  const one = async (index) => {
    const leaveAfter = random() < 0.45 ? Math.floor(random() ** 2 * 1500) : undefined;
    if (random() < 0.06) return overSocket(url, model, leaveAfter, ends);
    const [path, make] = KINDS[Math.floor(random() * KINDS.length)];
    const text = `Client ${index % 7} asks: what is ${Math.floor(random() * 50)} plus 4?`;
    const tokens = 4 + Math.floor(random() * 20);
    const body = make({
      text,
      tokens,
      chat: { messages: [{ role: 'user', content: text }], max_tokens: tokens },
      response: { input: text, max_output_tokens: Math.max(tokens, 16) },
    });
    const streams = !/input_tokens|compact|conversations/.test(path) && body.background !== true && random() < 0.6;
    const whole = JSON.stringify({ model, ...body, ...(streams ? { stream: true } : {}) });
    // Some break off in the middle of their own words.
    const half = random() < 0.04;
    const sent = half ? whole.slice(0, whole.length / 2) : whole;
    return post(url + path, sent, { leaveAfter: half ? 20 : leaveAfter, declared: whole.length, half, ends, onAnswer });
  };
  const running = new Set();
  for (let index = 0; index < clients; index++) {
    const promise = one(index).finally(() => running.delete(promise));
    running.add(promise);
    if (running.size >= together) await Promise.race(running);
  }
  await Promise.all(running);
  return ends;
}

function post(url, body, { leaveAfter, declared, half, ends, onAnswer }) {
  return new Promise((resolve, reject) => {
    let left = false;
    let failure;
    let answer;
    const headers = { 'content-type': 'application/json', connection: 'close' };
    if (half) headers['content-length'] = declared;
    const request = httpRequest(url, { method: 'POST', headers }, (response) => {
      answer = { status: response.statusCode, text: '' };
      response.setEncoding('utf8');
      response.on('data', (chunk) => (answer.text += chunk));
      response.on('error', (error) => (failure = error));
    });
    const leave = () => {
      left = true;
      request.destroy();
    };
    const timer = leaveAfter === undefined ? undefined : setTimeout(leave, leaveAfter);
    request.on('error', (error) => (failure = error));
    // Comes after the end of the answer, too.
    request.on('close', () => {
      clearTimeout(timer);
      if (left) ends.aborted += 1;
      else if (answer === undefined || failure !== undefined) return reject(failure ?? new Error('no answer'));
      else {
        ends[answer.status < 400 ? 'whole' : 'refused'] += 1;
        onAnswer?.(answer.status, answer.text);
      }
      resolve();
    });
    if (half) request.write(body);
    else request.end(body);
  });
}

/** Two responses over one WebSocket after a frame that is none, the second a continuation; or gone before that. */
function overSocket(url, model, leaveAfter, ends) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/v1/responses`);
    const timer = leaveAfter === undefined ? undefined : setTimeout(() => socket.terminate(), leaveAfter);
    const ask = (more) =>
      socket.send(JSON.stringify({ type: 'response.create', model, input: 'Hello', max_output_tokens: 16, ...more }));
    let failure;
    let errors = 0;
    let responses = 0;
    socket.on('open', () => socket.send('{"type":'));
    socket.on('message', (data) => {
      const event = JSON.parse(data.toString());
      if (event.type === 'error') {
        errors += 1;
        if (errors === 1) return ask({});
        failure = new Error(`over the socket: ${JSON.stringify(event)}`);
        return socket.close();
      }
      if (!/^response\.(completed|incomplete|failed)$/.test(event.type)) return;
      responses += 1;
      if (responses === 1) ask({ previous_response_id: event.response.id });
      else socket.close();
    });
    socket.on('error', (error) => (failure ??= error));
    socket.on('close', () => {
      clearTimeout(timer);
      if (failure !== undefined && leaveAfter === undefined) return reject(failure);
      ends.sockets += 1;
      resolve();
    });
  });
}
