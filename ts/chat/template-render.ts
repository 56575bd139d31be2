/** One rendering, as it runs in the worker: transformers' `render_jinja_template` for one conversation. */

import { TemplateRuntimeError } from './jinja/errors.js';
import { templateGlobals } from './jinja/globals.js';
import { renderProgram } from './jinja/interpreter.js';
import { parseTemplate } from './jinja/parse.js';
import { fromPlain } from './jinja/values.js';

/** What a template sees, in the template's own (Hugging Face's) field names: plain data that can be posted to a worker. */
export interface TemplateInput {
  readonly template: string;
  readonly messages: readonly Readonly<Record<string, unknown>>[];
  readonly tools?: readonly unknown[] | undefined;
  readonly documents?: readonly unknown[] | undefined;
  readonly addGenerationPrompt: boolean;
  /** End the prompt right after the final message's content, so that the model continues it. */
  readonly continueFinalMessage: boolean;
  /** bos_token, eos_token, … */
  readonly specialTokens: Readonly<Record<string, string>>;
  /** The request's extra variables; they win over special tokens. */
  readonly variables?: Readonly<Record<string, unknown>> | undefined;
  /** Milliseconds since 1970 that `strftime_now` tells. Unset: now. */
  readonly now?: number | undefined;
}

/** Compiled templates kept, least recently used first. */
const MAX_COMPILED = 32;
const compiled = new Map<string, ReturnType<typeof parseTemplate>>();

/** `maxOutput`: longest text in UTF-16 units. Throws the errors of `jinja/errors.ts`. */
export function renderTemplate(input: TemplateInput, maxOutput: number): string {
  const messages = input.messages.map((message) => ({ ...message }));
  const continued = input.continueFinalMessage ? markFinalMessage(input.template, messages) : undefined;
  const variables = { ...input.specialTokens, ...input.variables };
  const globals = new Map(templateGlobals(new Date(input.now ?? Date.now())));
  for (const [name, value] of Object.entries(variables)) globals.set(name, fromPlain(value));
  globals.set('messages', fromPlain(messages));
  globals.set('tools', fromPlain(input.tools ?? null));
  if (input.documents || !globals.has('documents')) globals.set('documents', fromPlain(input.documents ?? null));
  globals.set('add_generation_prompt', input.addGenerationPrompt);
  const rendered = renderProgram(compile(input.template), globals, maxOutput);
  return continued === undefined ? rendered : cutAfterMark(rendered, continued);
}

function compile(source: string): ReturnType<typeof parseTemplate> {
  const program = compiled.get(source) ?? parseTemplate(source);
  compiled.delete(source);
  compiled.set(source, program);
  const [oldest] = compiled.keys();
  if (compiled.size > MAX_COMPILED && oldest !== undefined) compiled.delete(oldest);
  return program;
}

/** transformers' own mark: templates may trim the space at its end, and that tells whether the content was trimmed. */
const MARK = 'CONTINUE_FINAL_MESSAGE_TAG ';

/** Appends the mark to the last text of the last message, and returns that text. */
function markFinalMessage(template: string, messages: Record<string, unknown>[]): string {
  const last = messages.at(-1);
  const content = last?.['content'];
  if (!last || content === null || content === undefined) {
    throw new TemplateRuntimeError('the final message has no content to continue');
  }
  if (!template.includes('content'))
    throw new TemplateRuntimeError('the chat template does not use the content to continue');
  if (typeof content === 'string') {
    last['content'] = content + MARK;
    return content;
  }
  const parts = (content as readonly Readonly<Record<string, unknown>>[]).map((part) => ({ ...part }));
  const part = parts.findLast((candidate) => typeof candidate['text'] === 'string');
  if (!part) throw new TemplateRuntimeError('the final message has no text to continue');
  const text = part['text'] as string;
  part['text'] = text + MARK;
  last['content'] = parts;
  return text;
}

function cutAfterMark(rendered: string, content: string): string {
  const at = rendered.lastIndexOf(MARK.trimEnd());
  if (at < 0 || !rendered.includes(content.trim())) {
    throw new TemplateRuntimeError('the final message cannot be continued: the chat template drops or changes it');
  }
  const kept = rendered.slice(0, at);
  // The template trimmed the message, so the white space before the mark is not the template's either.
  return rendered.startsWith(MARK, at) ? kept : kept.trimEnd();
}
