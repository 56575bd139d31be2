/**
 * What a chat template leaves undone: some show no calls of earlier turns, only one of several, or want tools and calls
 * in fields of their own making. What the model then reads is what it was taught to write.
 */

import { BARE_CALLS, type CallSyntax, pickFormat, type ToolSyntax } from './formats/index.js';
import { fromPlain, repr, toJson } from './jinja/values.js';
import type { ChatMessage, ToolCall, ToolDefinition } from './types.js';

type TemplateMessage = Readonly<Record<string, unknown>>;

/** Python's json.dumps with its defaults, but for letters. */
const PYTHON_JSON = {
  ensureAscii: false,
  indent: undefined,
  itemSeparator: ', ',
  keySeparator: ': ',
  sortKeys: false,
} as const;

export function pythonJson(value: unknown): string {
  return toJson(fromPlain(value), PYTHON_JSON);
}

/** A call's arguments as it has them in the history; some clients send nothing, or null, for none. */
export function givenArguments(call: ToolCall): string {
  const given = call.arguments.trim();
  return given === '' || given === 'null' ? '{}' : given;
}

/** The conversation as this template can show it. Arguments of calls must be JSON. */
export function adaptMessages(template: string, family: string, messages: readonly ChatMessage[]): ChatMessage[] {
  if (!messages.some(({ toolCalls }) => toolCalls !== undefined)) return [...messages];
  if (showsFirstCallOnly(template)) return oneCallEach(messages);
  if (template.includes('tool_calls') || namesCallInMetadata(template)) return [...messages];
  const syntax = pickFormat(template, family).tools ?? BARE_CALLS;
  return messages.map((message) => withCallsAsText(message, syntax));
}

/** GLM-4: a call is a message whose metadata is the name; its result is an observation. */
export function adaptTemplateMessages(
  template: string,
  messages: readonly TemplateMessage[],
  tools: readonly ToolDefinition[],
): TemplateMessage[] {
  const named = namesCallInMetadata(template) ? messages.flatMap(withMetadata) : [...messages];
  const field = /\b(?:message|item)\['tools'\]/.test(template);
  if (!field || tools.length === 0) return named;
  // Phi-4-mini adds them to text, ChatGLM goes through them.
  const inText = /\+ message\['tools'\]/.test(template);
  const shown = inText
    ? pythonJson(tools.map(bareTool))
    : tools.map((tool) => ({ type: 'function', function: bareTool(tool) }));
  const [first, ...rest] = named;
  if (first?.['role'] === 'system') return [{ ...first, tools: shown }, ...rest];
  return [{ role: 'system', content: '', tools: shown }, ...named];
}

/** Words of the API for how much to think, and how many tokens Seed-OSS is told for them; -1 is no limit. */
const BUDGETS: Readonly<Record<string, number>> = {
  none: 0,
  minimal: 512,
  low: 1024,
  medium: 4096,
  high: 16_384,
  xhigh: -1,
  max: -1,
};

/**
 * `reasoning_effort` in the words of every family: most have a switch under one of two names, some a budget. What the
 * request sets itself goes before. A template without any of it thinks as it always does.
 */
export function effortVariables(
  template: string,
  family: string,
  given: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, unknown>> {
  const { reasoning_effort: effort } = given;
  const budget = typeof effort === 'string' ? BUDGETS[effort] : undefined;
  if (budget === undefined) return given;
  const thinks = effort !== 'none';
  return {
    enable_thinking: thinks,
    thinking: thinks,
    thinking_budget: budget,
    ...given,
    reasoning_effort: pickFormat(template, family).channels === true ? harmonyEffort(String(effort)) : effort,
  };
}

/** gpt-oss was taught three. */
function harmonyEffort(effort: string): string {
  if (effort === 'none' || effort === 'minimal') return 'low';
  return effort === 'xhigh' || effort === 'max' ? 'high' : effort;
}

/** Variables in which a template looks for the tools, beside `tools`. The request's own go before them. */
export function toolVariables(
  template: string,
  tools: readonly ToolDefinition[],
  given: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, unknown>> {
  // SmolLM3 can be told to call by JSON or by Python code; only the first can be read as calls.
  const wanted = tools.length > 0 && /\bxml_tools\b/.test(template);
  return wanted && !('xml_tools' in given || 'python_tools' in given) ? { xml_tools: tools.map(bareTool) } : {};
}

function bareTool({ name, description, parameters }: ToolDefinition): Readonly<Record<string, unknown>> {
  return {
    name,
    ...(description === undefined ? {} : { description }),
    ...(parameters === undefined ? {} : { parameters }),
  };
}

/** gpt-oss and Llama 3 know one call a message, and drop or refuse others. */
function showsFirstCallOnly(template: string): boolean {
  return /tool_calls\[0\]/.test(template) && !/for \w+ in \w+(\.|\[['"])tool_calls/.test(template);
}

/** Several calls and their results → each call with its result. */
function oneCallEach(messages: readonly ChatMessage[]): ChatMessage[] {
  const out: ChatMessage[] = [];
  for (let at = 0; at < messages.length; at++) {
    const message = messages[at];
    const { toolCalls = [], ...spoken } = message ?? { role: 'user', content: '' };
    if (message === undefined || toolCalls.length < 2) {
      if (message !== undefined) out.push(message);
      continue;
    }
    const results: ChatMessage[] = [];
    for (let next = messages[at + 1]; next?.role === 'tool'; next = messages[++at + 1]) results.push(next);
    for (const [index, call] of toolCalls.entries()) {
      const own = results.filter(({ toolCallId }) => toolCallId === call.id);
      out.push({ ...(index === 0 ? spoken : { role: 'assistant', content: null }), toolCalls: [call] }, ...own);
    }
    out.push(...results.filter(({ toolCallId }) => !toolCalls.some(({ id }) => id === toolCallId)));
  }
  return out;
}

function namesCallInMetadata(template: string): boolean {
  return /\bmetadata\b/.test(template) && !template.includes('tool_calls');
}

function withMetadata(message: TemplateMessage): TemplateMessage[] {
  if (message['role'] === 'tool') return [{ ...message, role: 'observation' }];
  const { tool_calls: calls, ...spoken } = message;
  if (!Array.isArray(calls)) return [message];
  const called = (calls as { function: { name: string; arguments: unknown } }[]).map((call) => {
    const { name, arguments: given } = call.function;
    return { role: 'assistant', metadata: name, content: pythonJson(given) };
  });
  return spoken['content'] === '' || spoken['content'] === null ? called : [spoken, ...called];
}

function withCallsAsText(message: ChatMessage, syntax: ToolSyntax): ChatMessage {
  const { toolCalls, ...spoken } = message;
  if (toolCalls === undefined) return message;
  const calls = toolCalls.map((call) => ({
    name: call.name,
    arguments: JSON.parse(givenArguments(call)) as unknown,
  }));
  const written = writeCalls(syntax, calls);
  if (written === undefined) return message;
  const { content } = spoken;
  if (content === null || content === '') return { ...spoken, content: written };
  if (typeof content === 'string') return { ...spoken, content: `${content}\n${written}` };
  return { ...spoken, content: [...content, { type: 'text', text: written }] };
}

interface WrittenCall {
  readonly name: string;
  readonly arguments: unknown;
}

/** Calls as the family writes them. Undefined for syntaxes whose templates all show calls themselves. */
export function writeCalls(syntax: ToolSyntax, calls: readonly WrittenCall[]): string | undefined {
  const [kind] = syntax.calls;
  const texts = calls.map((call) => writeCall(kind, call));
  if (!texts.every((text) => text !== undefined)) return undefined;
  const padding = syntax.padding ?? '';
  const section = (text: string): string => `${syntax.open[0] ?? ''}${padding}${text}${padding}${syntax.close ?? ''}`;
  if (kind.kind === 'python' || (kind.kind === 'json' && kind.list === true)) return section(`[${texts.join(', ')}]`);
  const { several } = syntax;
  if (several !== undefined && 'inSection' in several) return section(texts.join(several.separator));
  return texts.map(section).join(several?.separator ?? '\n');
}

function writeCall(syntax: CallSyntax, call: WrittenCall): string | undefined {
  if (syntax.kind === 'json') return pythonJson({ [syntax.name]: call.name, [syntax.arguments]: call.arguments });
  if (syntax.kind !== 'python') return undefined;
  const given = Object.entries(call.arguments as Readonly<Record<string, unknown>>);
  return `${call.name}(${given.map(([key, value]) => `${key}=${repr(fromPlain(value))}`).join(', ')})`;
}
