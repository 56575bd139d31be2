import { ChoicesMachine, foldChoices } from '../../chat/choices.js';
import { ChatChunkMachine, foldChatCompletion } from '../../chat/chunk-machine.js';
import type { ChatModel, ChatRequest, FinishReason } from '../../chat/types.js';
import { ChatMcpDeltas } from '../../mcp/chat-deltas.js';
import type { ToolLoopEnd, ToolLoopEvent } from '../../mcp/loop-events.js';
import { runToolLoop } from '../../mcp/tool-loop.js';
import {
  CHAT_COMPLETION_FIELDS,
  type ChatCompletion,
  type ChatCompletionChunk,
  type ChatCompletionRequest,
  type ChatMcpLists,
  parseChatCompletionRequest,
} from '../../protocol/chat-completions.js';
import { unsupportedValue } from '../../protocol/errors.js';
import type { Message } from '../../protocol/messages.js';
import { acquireModelFor } from '../acquire.js';
import { answer } from '../answer.js';
import { readJson } from '../body.js';
import type { RequestContext } from '../context.js';
import { generateSeveral, samplingOf } from '../several.js';
import { requestedServers } from '../mcp.js';
import { newId, unfinished, unixSeconds } from './common.js';
import type { Route } from './route.js';

const PATH = '/v1/chat/completions';

export const chatCompletions: Route = {
  method: 'POST',
  path: PATH,
  summary: 'answer a conversation, streaming or not',
  body: { fields: CHAT_COMPLETION_FIELDS, required: ['messages'] },
  answer: { json: 'ChatCompletion', event: 'ChatCompletionChunk' },
  async handle(context) {
    context.promptParam = 'messages';
    const request = parseChatCompletionRequest(await readJson(context), context.parseOptions(PATH));
    const mcp = new ChatMcpDeltas();
    await answer(context, request.stream, chunksOf(context, request, mcp), (chunks) =>
      request.mcpTools.length === 0 ? foldChoices(chunks) : withMcp(foldChatCompletion(chunks), mcp.message),
    );
  },
};

/** @param mcp is told what servers' tools were run */
async function* chunksOf(
  context: RequestContext,
  request: ChatCompletionRequest,
  mcp: ChatMcpDeltas,
): AsyncGenerator<ChatCompletionChunk> {
  const loopOf = loopMaker(context, request);
  using lease = await acquireModelFor('text', context, request.model);
  const { model } = lease;
  refuseImages(request.messages, model.id);
  const head = {
    id: newId('chatcmpl'),
    created: unixSeconds(),
    model: model.id,
    includeUsage: request.includeUsage || !request.stream,
  };
  if (loopOf !== undefined) {
    const machine = new ChatChunkMachine(head);
    for await (const event of loopOf(model.chat)) yield* loopChunks(event, machine, mcp);
    if (machine.usage === undefined) throw unfinished();
    context.usage = machine.usage;
    return;
  }
  const { n } = request;
  const machine = new ChoicesMachine(head, n);
  const chat = toChatRequest(request);
  const answers = generateSeveral(
    { prompts: 1, n, limit: model.info.maxNumSeqs, signal: context.signal },
    (_prompt, choice, signal) =>
      model.chat.chat({ ...chat, sampling: samplingOf(request.sampling, choice, model.defaultSeed) }, signal),
  );
  // Not `yield*`, which makes several promises for each value of a list.
  for await (const { index, event } of answers) {
    for (const chunk of machine.push(index, event)) yield chunk;
  }
  if (machine.usage === undefined) throw unfinished();
  context.usage = machine.usage;
}

/** Undefined if the request names no servers. @throws ApiError 400 for servers that may not be used */
function loopMaker(
  context: RequestContext,
  request: ChatCompletionRequest,
): ((model: ChatModel) => AsyncIterable<ToolLoopEvent>) | undefined {
  const { mcpTools } = request;
  if (mcpTools.length === 0) return undefined;
  const { mcp } = context.services;
  if (mcp === undefined) throw unsupportedValue('tools', 'no MCP tools are run here');
  if (request.n > 1) throw unsupportedValue('n', 'with MCP tools there is one answer (n = 1)');
  // Which of them is meant, the error says by its label.
  const servers = requestedServers(mcp, mcpTools, () => 'tools', context.caller);
  const { pool, maxTurns } = mcp;
  const { toolChoice = 'auto' } = request;
  const { signal } = context;
  return (model) =>
    runToolLoop({
      model,
      pool,
      request: toChatRequest(request),
      servers,
      toolChoice,
      signal,
      ...(maxTurns === undefined ? {} : { maxTurns }),
    });
}

function loopChunks(event: ToolLoopEvent, machine: ChatChunkMachine, mcp: ChatMcpDeltas): ChatCompletionChunk[] {
  if (event.type === 'model' || event.type === 'function_call') return machine.push(event.event);
  if (event.type === 'finished') {
    const { usage, timings, reasoningTokens } = event;
    const counted = reasoningTokens === undefined ? {} : { reasoningTokens };
    return machine.push({ type: 'finished', reason: FINISH_REASONS[event.reason], usage, timings, ...counted });
  }
  const delta = mcp.take(event);
  return delta === undefined ? [] : machine.pushMcp(delta);
}

const FINISH_REASONS: Readonly<Record<ToolLoopEnd, FinishReason>> = {
  stop: 'stop',
  length: 'length',
  function_calls: 'tool_calls',
  // Without a call that is the client's, 'tool_calls' would send it looking for one.
  approval: 'stop',
  max_turns: 'stop',
};

function withMcp(completion: ChatCompletion, lists: ChatMcpLists): ChatCompletion {
  const choices = completion.choices.map((choice) => ({ ...choice, message: { ...choice.message, ...lists } }));
  return { ...completion, choices };
}

/** All models read text only, so far. */
function refuseImages(messages: readonly Message[], model: string): void {
  for (const [i, { content }] of messages.entries()) {
    if (content === null || typeof content === 'string') continue;
    const j = content.findIndex((part) => part.type === 'image');
    if (j >= 0)
      throw unsupportedValue(`messages[${i}].content[${j}]`, `it is an image, and '${model}' reads text only`);
  }
}

function toChatRequest(request: ChatCompletionRequest): ChatRequest {
  const { messages, tools, mcpTools, sampling, maxTokens, stop, stopTokenIds, ignoreEos, logprobs } = request;
  const { toolChoice, parallelToolCalls, responseFormat, grammar } = request;
  const { templateVariables, addGenerationPrompt, continueFinalMessage, cacheSalt } = request;
  return {
    messages,
    ...(tools.length === 0 ? {} : { tools, toolChoice }),
    ...(tools.length + mcpTools.length === 0 ? {} : { parallelToolCalls }),
    responseFormat,
    ...(grammar === undefined ? {} : { grammar }),
    sampling,
    maxTokens,
    ...(stop.length === 0 ? {} : { stop }),
    ...(stopTokenIds.length === 0 ? {} : { stopTokenIds }),
    ignoreEos,
    logprobs,
    templateVariables,
    addGenerationPrompt,
    continueFinalMessage,
    cacheSalt,
  };
}
