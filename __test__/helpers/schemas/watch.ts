/**
 * Listens in on a server: every JSON body, every event and every WebSocket frame that leaves it is held against the
 * published schemas, whatever client asked for it.
 */

import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Duplex, Writable } from 'node:stream';

import * as ws from 'ws';

import { dataOf, parseEvents } from '../events.js';
import { problemOf, type Said } from './judge.js';

/** ws has it, its types do not. */
const { Receiver } = ws as unknown as { readonly Receiver: new (options: { readonly isServer: boolean }) => Writable };

export interface Watch {
  /** Everything that was said, if it is to be kept. */
  readonly said: readonly Said[];
  /** @throws Error that names what does not fit */
  verify(): void;
}

/** @param keep whether to remember what was said */
export function watchServer(server: Server, { keep = false }: { readonly keep?: boolean } = {}): Watch {
  const said: Said[] = [];
  const problems = new Set<string>();
  const judge = (one: Said): void => {
    if (keep) said.push(one);
    const problem = problemOf(one);
    if (problem !== undefined) problems.add(problem);
  };
  const complain = (problem: string): void => void problems.add(problem);
  server.prependListener('request', (req: IncomingMessage, res: ServerResponse) => listen(req, res, judge, complain));
  server.prependListener('upgrade', (req: IncomingMessage, socket: Duplex) => listenToFrames(req, socket, judge));
  return {
    said,
    verify() {
      if (problems.size === 0) return;
      const list = [...problems];
      problems.clear();
      throw new Error(`${list.length} answers do not fit their schema:\n${list.slice(0, 10).join('\n')}`);
    },
  };
}

function listen(
  req: IncomingMessage,
  res: ServerResponse,
  judge: (said: Said) => void,
  complain: (problem: string) => void,
): void {
  // Routers change the request's own.
  const { method = 'GET', url = '' } = req;
  const path = url.replace(/[?#].*$/s, '');
  const chunks: Buffer[] = [];
  const take = (chunk: unknown): void => {
    if (typeof chunk === 'string') chunks.push(Buffer.from(chunk));
    else if (chunk instanceof Uint8Array) chunks.push(Buffer.from(chunk));
  };
  const write = res.write.bind(res);
  const end = res.end.bind(res);
  res.write = ((...parameters: Parameters<typeof write>) => (
    take(parameters[0]),
    write(...parameters)
  )) as typeof write;
  res.end = ((...parameters: Parameters<typeof end>) => (take(parameters[0]), end(...parameters))) as typeof end;
  res.once('close', () => {
    const text = Buffer.concat(chunks).toString('utf8');
    const type = String(res.getHeader('content-type') ?? '').replace(/;.*/, '');
    const at = { method, path, status: res.statusCode } as const;
    if (type === 'text/event-stream') {
      for (const value of events(text, complain)) judge({ ...at, value, as: 'event' });
    } else if (type === 'application/json') {
      // A client that left may have left in the middle.
      if (res.writableEnded) judge({ ...at, value: JSON.parse(text), as: 'body' });
    } else if (res.statusCode >= 400 && method !== 'HEAD') {
      complain(`${res.statusCode} of ${method} ${path} is not JSON but ${type || 'nothing'}`);
    }
  });
}

/** Whole events only: the last one may be cut off where the client left. */
function events(text: string, complain: (problem: string) => void): unknown[] {
  const messages = parseEvents([Buffer.from(text.slice(0, text.lastIndexOf('\n\n') + 2))]);
  const data = dataOf(messages);
  const done = data.indexOf('[DONE]');
  if (done >= 0 && done !== data.length - 1) complain('something follows [DONE]');
  for (const [index, { event }] of messages.entries()) {
    const { type } = data[index] as { type?: string };
    if (event !== undefined && event !== type)
      complain(`an event is called ${event} and says that it is ${type ?? '?'}`);
  }
  return data.filter((value) => value !== '[DONE]');
}

function listenToFrames(req: IncomingMessage, socket: Duplex, judge: (said: Said) => void): void {
  const path = (req.url ?? '').replace(/[?#].*$/s, '');
  const receiver = new Receiver({ isServer: false });
  receiver.on('message', (data: Buffer) => {
    const value: unknown = JSON.parse(data.toString('utf8'));
    judge({ method: 'POST', path, status: 200, value, as: 'frame' });
  });
  // The last frame of a connection that ends may be cut off.
  receiver.on('error', () => undefined);
  const write = socket.write.bind(socket);
  let head = '';
  let upgraded = false;
  socket.write = ((...parameters: Parameters<typeof write>) => {
    const bytes = Buffer.from(parameters[0] as string | Uint8Array);
    if (upgraded) receiver.write(bytes);
    else {
      head += bytes.toString('latin1');
      const ended = head.indexOf('\r\n\r\n');
      upgraded = ended >= 0;
      if (upgraded && ended + 4 < head.length) receiver.write(Buffer.from(head.slice(ended + 4), 'latin1'));
    }
    return write(...parameters);
  }) as typeof write;
}
