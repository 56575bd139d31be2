/** `ChatModel` over the engine: messages → prompt text → generation → chat events. */

import type { Engine, GenerateRequest, Generation, LoadedModel, TokenInfo } from '../engine/types.js';
import { toTemplateInput } from './template-input.js';
import type { TemplateRenderer } from './template.js';
import type { ChatEvent, ChatModel, ChatRequest } from './types.js';

export interface LocalModelOptions {
  readonly engine: Engine;
  readonly info: LoadedModel;
  readonly templates: TemplateRenderer;
}

export interface LocalModel extends ChatModel {
  /** The prompt `chat` would send. Throws EngineError `template_error` or `invalid_request`. */
  applyChatTemplate(request: ChatRequest, signal?: AbortSignal): Promise<string>;
}

export function createLocalModel({ engine, info, templates }: LocalModelOptions): LocalModel {
  const applyChatTemplate = async (request: ChatRequest, signal?: AbortSignal): Promise<string> =>
    templates.render(toTemplateInput(info, request), signal);
  return {
    applyChatTemplate,
    async *chat(request, signal) {
      const prompt = await applyChatTemplate(request, signal);
      yield* toChatEvents(engine.generate(toGenerateRequest(info, request, prompt), signal));
    },
  };
}

function toGenerateRequest(info: LoadedModel, request: ChatRequest, prompt: string): GenerateRequest {
  const { sampling, maxTokens, stop, ignoreEos, logprobs, cacheSalt } = request;
  return {
    model: info.handle,
    // The template has written the special tokens itself.
    prompt: { text: prompt, addSpecialTokens: false },
    ...(sampling === undefined ? {} : { sampling }),
    ...(maxTokens === undefined ? {} : { maxTokens }),
    ...(stop === undefined ? {} : { stop }),
    ...(ignoreEos === undefined ? {} : { ignoreEos }),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...(cacheSalt === undefined ? {} : { cacheSalt }),
  };
}

/** All text is content; special tokens are marks, not text, and are left out. */
async function* toChatEvents(generation: Generation): AsyncGenerator<ChatEvent, void> {
  /** Of tokens whose text has not come yet: parts of one character, or the start of what may be a stop string. */
  let waiting: TokenInfo[] = [];
  for await (const event of generation) {
    switch (event.type) {
      case 'started':
      case 'prefill':
        yield event;
        break;
      case 'prompt':
        break;
      case 'delta': {
        const marks = new Set(event.pieces.map((piece) => piece.special));
        waiting.push(...(event.tokens ?? []).filter((token) => !marks.has(token.id)));
        const text = event.pieces.map((piece) => (piece.special === undefined ? piece.text : '')).join('');
        if (text === '') break;
        yield waiting.length > 0 ? { type: 'content', text, tokens: waiting } : { type: 'content', text };
        waiting = [];
        break;
      }
      case 'finished':
        // Tokens that never became text (half a character at the limit) are reported all the same.
        if (waiting.length > 0) yield { type: 'content', text: '', tokens: waiting };
        yield { type: 'finished', reason: event.reason, usage: event.usage, timings: event.timings };
        break;
    }
  }
}
