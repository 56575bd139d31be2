/** A small HTTP server that plays an OpenAI server by script: for testing clients. */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface ScriptedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: any;
}

export type Script = (request: ScriptedRequest, response: ServerResponse) => void | Promise<void>;

export interface ScriptedServer extends AsyncDisposable {
  readonly url: string;
  readonly requests: readonly ScriptedRequest[];
}

export async function scriptedServer(script: Script): Promise<ScriptedServer> {
  const requests: ScriptedRequest[] = [];
  const server = createServer((message, response) => {
    void (async () => {
      let text = '';
      for await (const chunk of message.setEncoding('utf8')) text += String(chunk);
      const body: unknown = text === '' ? undefined : JSON.parse(text);
      const request = { method: message.method!, path: message.url!, headers: message.headers, body };
      requests.push(request);
      await script(request, response);
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

export function startEvents(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
}

export function sendEvent(response: ServerResponse, body: unknown): void {
  response.write(`data: ${typeof body === 'string' ? body : JSON.stringify(body)}\n\n`);
}

/** A whole streamed answer in pieces, with usage. */
export function sendAnswer(response: ServerResponse, pieces: readonly string[], finish = 'stop'): void {
  startEvents(response);
  for (const content of pieces)
    sendEvent(response, { choices: [{ index: 0, delta: { content }, finish_reason: null }] });
  sendEvent(response, { choices: [{ index: 0, delta: {}, finish_reason: finish }] });
  sendEvent(response, {
    choices: [],
    usage: { prompt_tokens: 3, completion_tokens: 2 * pieces.length, total_tokens: 0 },
  });
  sendEvent(response, '[DONE]');
  response.end();
}
