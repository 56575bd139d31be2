/** The app on a free port over a scripted registry, and ways to talk to it. */

import { request as httpRequest, type IncomingHttpHeaders, type Server } from 'node:http';

import { type AppOptions, createApp } from '../../ts/http/app.js';
import { closeServer, createHttpServer, listen } from '../../ts/http/server.js';
import { dataOf, parseEvents } from './events.js';
import { fieldParts, formBody, type FormPart, RECORDING } from './form.js';
import { type Watch, watchServer } from './schemas/watch.js';
import { ScriptedRegistry, type ScriptedModelOptions } from './scripted-registry.js';

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** Parsed from the text. */
  readonly json: any;
}

export interface Call {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
}

export class ScriptedApp implements AsyncDisposable {
  private constructor(
    readonly registry: ScriptedRegistry,
    readonly server: Server,
    readonly port: number,
    /** Lines of the log. */
    readonly log: readonly string[],
    /** Holds everything that goes out against the published schemas. */
    readonly watch: Watch,
  ) {}

  static async start(
    models: readonly ScriptedModelOptions[],
    options: Partial<AppOptions> & { readonly pinned?: string } = {},
  ): Promise<ScriptedApp> {
    const registry = new ScriptedRegistry(models, options.pinned);
    const log: string[] = [];
    const at = (level: string) => (message: string) => void log.push(`${level} ${message}`);
    const logger = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
    const server = createHttpServer(createApp({ registry, logger, ...options }));
    const watch = watchServer(server, { keep: true });
    const { port } = await listen(server, { host: '127.0.0.1', port: 0 });
    return new ScriptedApp(registry, server, port, log, watch);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Any request, also those that fetch would not send. */
  call({ method = 'GET', path, headers = {}, body }: Call): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const req = httpRequest({ host: '127.0.0.1', port: this.port, method, path, headers, agent: false }, (res) => {
        const chunks: Buffer[] = [];
        res.on('data', (chunk: Buffer) => chunks.push(chunk));
        res.on('error', reject);
        res.on('end', () => {
          const text = Buffer.concat(chunks).toString('utf8');
          const answer = { status: res.statusCode ?? 0, headers: res.headers, text };
          resolve(Object.defineProperty(answer, 'json', { get: () => JSON.parse(text) as unknown }) as Answer);
        });
      });
      req.on('error', reject);
      req.end(body);
    });
  }

  post(path: string, body: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
    return this.call({
      method: 'POST',
      path,
      headers: { 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
  }

  /** A form with a recording and these fields; `parts` instead of all of it. */
  form(
    path: string,
    fields: Readonly<Record<string, string | readonly string[]>> = {},
    parts: readonly FormPart[] = [RECORDING, ...fieldParts(fields)],
  ): Promise<Answer> {
    return this.call({ method: 'POST', path, ...formBody(parts) });
  }

  /** A streaming request's events: their data, parsed, and '[DONE]' as it is. */
  async stream(path: string, body: object): Promise<unknown[]> {
    const answer = await this.post(path, { stream: true, ...body });
    return dataOf(parseEvents([Buffer.from(answer.text)]));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await closeServer(this.server);
    this.watch.verify();
  }
}

export { dataOf, parseEvents } from './events.js';
