/** So many users who chat at once, each through a stream of its own: what they see of a server. */

import { Agent, request } from 'node:http';

import { createParser } from 'eventsource-parser';

import { percentile } from '../statistics.js';
import type { ChatSample } from './results.js';

/** About 330 tokens that all users share. */
export const systemPrompt = `You are the assistant of a public library in a town by the sea. People ask you about opening hours, \
lending rules, rooms, events, and books. The library opens at nine in the morning from Monday to Friday, at ten on Saturday, and \
is closed on Sunday and on public holidays. It closes at seven in the evening, on Saturday at four. A card costs nothing for those \
who live in the town and twelve a year for all others; it is made at the front desk on showing a document with a photograph. With a \
card one may borrow ten books, five films and three games at a time. Books may be kept for four weeks, films and games for one; each \
may be kept twice as long if nobody else waits for it. What comes back late costs ten cents a day and piece, never more than five in \
all, and nothing for children. Reading rooms on the first floor are quiet: no calls, no food, drinks in closed bottles only. The four \
group rooms on the second floor can be booked for two hours by anyone with a card, at the desk or by telephone. The workshop in the \
basement has two printers, a sewing machine and a scanner for slides; it is open on Tuesday and Thursday afternoon, and somebody is \
there to help. Every first Wednesday of the month an author reads, and on Friday mornings there are stories for the smallest. Answer \
in short and friendly sentences, say so when you do not know something, never make up titles or dates, and send people who ask for \
legal or medical advice to those whose trade it is.`;

/** What users ask: one after the other, and numbered, so that no two requests are alike. */
const questions = [
  'When can I come on Saturday, and how long may I stay?',
  'How many films may I borrow at once, and for how long?',
  'I live in the next town. What does a card cost me?',
  'Where can I phone, and where can I eat my sandwich?',
  'My book is two weeks late. What do I pay?',
  'Can I scan my old slides, and will somebody help me?',
  'Is there something for my little daughter this week?',
  'We are five and need a room for an afternoon. What do we do?',
];

export interface ChatLoad {
  readonly port: number;
  readonly users: number;
  /** Requests that each user sends, one after the other. */
  readonly each: number;
  readonly tokens: number;
  readonly prefixCache: boolean;
}

/** When a stream's parts came, and what the server counted. */
interface Trace {
  readonly start: number;
  readonly parts: readonly number[];
  readonly tokens: number;
}

const maxTries = 3;

let asked = 0;

export async function chatLoad(load: ChatLoad): Promise<ChatSample> {
  const agent = new Agent({ keepAlive: true, maxSockets: load.users });
  try {
    const start = performance.now();
    const users = Array.from({ length: load.users }, async () => {
      const traces: Trace[] = [];
      for (let left = load.each; left > 0; left -= 1) traces.push(await chat(load, agent));
      return traces;
    });
    const traces = (await Promise.all(users)).flat();
    const seconds = (performance.now() - start) / 1000;
    const first = traces.map((trace) => (trace.parts[0] ?? NaN) - trace.start);
    const between = traces.flatMap(({ parts }) => parts.slice(1).map((at, i) => at - (parts[i] ?? NaN)));
    return {
      tokensPerSecond: traces.reduce((sum, trace) => sum + trace.tokens, 0) / seconds,
      firstP50: percentile(first, 0.5),
      firstP99: percentile(first, 0.99),
      betweenP50: percentile(between, 0.5),
      betweenP99: percentile(between, 0.99),
    };
  } finally {
    agent.destroy();
  }
}

interface Chunk {
  readonly choices?: readonly { readonly delta?: { readonly content?: string | null } }[];
  readonly usage?: { readonly completion_tokens: number } | null;
}

function chat({ port, tokens, prefixCache }: ChatLoad, agent: Agent): Promise<Trace> {
  asked += 1;
  const question = `Visitor ${asked}: ${questions[asked % questions.length] ?? ''}`;
  // tsserve shares prefixes only between equal salts, llama-server forgets them on request; each passes over the other's word.
  const caching = prefixCache ? {} : { cache_salt: `visitor-${asked}`, cache_prompt: false };
  const body = JSON.stringify({
    messages: [
      { role: 'system', content: systemPrompt },
      { role: 'user', content: question },
    ],
    stream: true,
    stream_options: { include_usage: true },
    max_tokens: tokens,
    temperature: 0,
    ignore_eos: true,
    ...caching,
  });
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const parts: number[] = [];
    let counted = 0;
    let tries = 0;
    const parser = createParser({
      onEvent: ({ data }) => {
        if (data === '[DONE]') return;
        const { choices, usage } = JSON.parse(data) as Chunk;
        if ((choices?.[0]?.delta?.content ?? '') !== '') parts.push(performance.now());
        if (usage !== undefined && usage !== null) counted = usage.completion_tokens;
      },
    });
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const path = '/v1/chat/completions';
    const send = (): void => {
      const sent = request({ host: '127.0.0.1', port, method: 'POST', path, headers, agent }, (response) => {
        if (response.statusCode !== 200) {
          response.resume();
          reject(new Error(`${path} answered ${response.statusCode ?? 0}`));
          return;
        }
        response.setEncoding('utf8');
        response.on('data', (text: string) => parser.feed(text));
        response.on('error', reject);
        response.on('end', () => {
          if (counted === 0) reject(new Error('a stream ended without its usage'));
          else resolve({ start, parts, tokens: counted });
        });
      });
      sent.on('error', (error: NodeJS.ErrnoException) => {
        // A server may close a connection at the moment when it is used: clients ask once more.
        tries += 1;
        if (error.code === 'ECONNRESET' && tries < maxTries) send();
        else reject(error);
      });
      sent.end(body);
    };
    send();
  });
}
