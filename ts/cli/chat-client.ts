/** The chat CLI's side of the API: it lists models and streams an answer from any OpenAI-compatible server. */

import { EventSourceParserStream } from 'eventsource-parser/stream';

import type { LoadEvent } from '../protocol/load-model.js';
import type { ChatSettings } from './chat-settings.js';
import { CliFailure, systemCode } from './failure.js';

export interface ChatClientOptions {
  /** The service's root: no `/v1`, no slash at the end. */
  readonly baseUrl: string;
  readonly apiKey: string | undefined;
}

export interface WireMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

export interface AnswerDelta {
  readonly content: string;
  readonly reasoning: string;
}

/** How an answer ended. */
export interface AnswerEnd {
  readonly finishReason: string | undefined;
  /** As the server counted them; without its count, the number of pieces. */
  readonly tokens: number;
}

/** `localhost:8000`, `http://host/v1/`, … → the service's root. */
export function serviceRoot(text: string): string {
  const withScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  let url: URL;
  try {
    url = new URL(withScheme);
  } catch {
    throw new CliFailure(`'${text}' is not a URL: give something like http://localhost:8000`, 2);
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new CliFailure(`'${text}' is not an http or https URL`, 2);
  }
  return (url.origin + url.pathname).replace(/\/+$/, '').replace(/\/v1$/, '');
}

export class ChatClient {
  readonly #options: ChatClientOptions;

  constructor(options: ChatClientOptions) {
    this.#options = options;
  }

  /** The ids that the server lists. */
  async models(signal?: AbortSignal): Promise<string[]> {
    const response = await this.#request('/v1/models', signal === undefined ? {} : { signal });
    const body: unknown = await response.json().catch(() => undefined);
    const data = field(body, 'data');
    if (!Array.isArray(data)) throw new CliFailure(`${this.#options.baseUrl} does not answer like an OpenAI server`);
    return data.map((model) => field(model, 'id')).filter((id) => typeof id === 'string');
  }

  /** The service's root. */
  get baseUrl(): string {
    return this.#options.baseUrl;
  }

  /**
   * Has the model loaded before the first question, where the server can (`POST /load_model`).
   * @param onProgress told of each event
   */
  async load(model: string, onProgress: (event: LoadEvent) => void): Promise<void> {
    const response = await this.#send('/load_model', { method: 'POST', body: JSON.stringify({ model }) });
    // Not every OpenAI server knows this: the first question loads the model then.
    if (!response.ok || response.body === null) {
      await response.body?.cancel();
      return;
    }
    const events = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
    for await (const { data } of events) {
      const event = parseJson(data) as LoadEvent | undefined;
      if (event?.status === 'error') throw new CliFailure(event.message);
      if (event !== undefined) onProgress(event);
    }
  }

  /** Streams one answer; deltas go to `onDelta`. An aborted signal ends it with an `AbortError`. */
  async answer(
    settings: ChatSettings,
    messages: readonly WireMessage[],
    onDelta: (delta: AnswerDelta) => void,
    signal: AbortSignal,
  ): Promise<AnswerEnd> {
    const body = {
      model: settings.model,
      messages,
      stream: true,
      stream_options: { include_usage: true },
      ...settings.fields,
    };
    const response = await this.#request('/v1/chat/completions', {
      method: 'POST',
      body: JSON.stringify(body),
      signal,
    });
    if (response.body === null) throw new CliFailure('the server sent an empty answer');
    let finishReason: string | undefined;
    let pieces = 0;
    let counted: number | undefined;
    try {
      const events = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
      for await (const event of events) {
        if (event.data === '[DONE]') break;
        const chunk = parseJson(event.data);
        const failure = errorMessage(chunk);
        if (failure !== undefined) throw new CliFailure(`the server failed: ${failure}`);
        const usage = field(field(chunk, 'usage'), 'completion_tokens');
        if (typeof usage === 'number') counted = usage;
        const choices = field(chunk, 'choices');
        const choice: unknown = Array.isArray(choices) ? choices[0] : undefined;
        const reason = field(choice, 'finish_reason');
        if (typeof reason === 'string') finishReason = reason;
        const delta = field(choice, 'delta');
        const content = text(field(delta, 'content'));
        const reasoning = text(field(delta, 'reasoning_content')) || text(field(delta, 'reasoning'));
        if (content === '' && reasoning === '') continue;
        pieces += 1;
        onDelta({ content, reasoning });
      }
    } catch (error) {
      throw this.#explain(error, signal);
    }
    if (finishReason === undefined)
      throw new CliFailure('the server closed the connection before the answer was whole');
    return { finishReason, tokens: counted ?? pieces };
  }

  async #send(path: string, init: RequestInit): Promise<Response> {
    const headers: Record<string, string> = { 'content-type': 'application/json' };
    if (this.#options.apiKey !== undefined) headers.authorization = `Bearer ${this.#options.apiKey}`;
    try {
      return await fetch(`${this.#options.baseUrl}${path}`, { ...init, headers });
    } catch (error) {
      throw this.#explain(error, init.signal ?? undefined);
    }
  }

  async #request(path: string, init: RequestInit): Promise<Response> {
    const response = await this.#send(path, init);
    if (response.ok) return response;
    const body = await response.text().catch(() => '');
    const said = errorMessage(parseJson(body));
    if (response.status === 401) {
      throw new CliFailure(`the server wants a key: ${said ?? 'it refused this one'} (--api-key or TSSERVE_API_KEY)`);
    }
    throw new CliFailure(said ?? `${this.#options.baseUrl}${path} answered with status ${response.status}`);
  }

  #explain(error: unknown, signal: AbortSignal | undefined): unknown {
    if (error instanceof CliFailure || signal?.aborted === true) return error;
    const { baseUrl } = this.#options;
    const code = systemCode(error);
    if (code === 'ECONNREFUSED') {
      return new CliFailure(`no server answers at ${baseUrl}: start one with 'tsserve serve'`);
    }
    if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return new CliFailure(`the host of ${baseUrl} is not known`);
    const reason = code ?? (error instanceof Error ? error.message : String(error));
    return new CliFailure(`the connection to ${baseUrl} broke: ${reason}`, 1, { cause: error });
  }
}

function parseJson(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    return undefined;
  }
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function errorMessage(body: unknown): string | undefined {
  const error = field(body, 'error');
  const message = typeof error === 'string' ? error : field(error, 'message');
  return typeof message === 'string' ? message : undefined;
}
