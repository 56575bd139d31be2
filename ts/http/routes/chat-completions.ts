import { ChoicesMachine, foldChoices } from '../../chat/choices.js';
import type { ChatRequest } from '../../chat/types.js';
import {
  CHAT_COMPLETION_FIELDS,
  type ChatCompletionChunk,
  type ChatCompletionRequest,
  parseChatCompletionRequest,
} from '../../protocol/chat-completions.js';
import { unsupportedValue } from '../../protocol/errors.js';
import type { Message } from '../../protocol/messages.js';
import { acquireModel } from '../acquire.js';
import { answer } from '../answer.js';
import { readJson } from '../body.js';
import type { RequestContext } from '../context.js';
import { generateSeveral, samplingOf } from '../several.js';
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
    await answer(context, request.stream, chunksOf(context, request), foldChoices);
  },
};

async function* chunksOf(context: RequestContext, request: ChatCompletionRequest): AsyncGenerator<ChatCompletionChunk> {
  using lease = await acquireModel(context, request.model);
  const { model } = lease;
  refuseImages(request.messages, model.id);
  const { n } = request;
  const head = { id: newId('chatcmpl'), created: unixSeconds(), model: model.id };
  const machine = new ChoicesMachine({ ...head, includeUsage: request.includeUsage || !request.stream }, n);
  const chat = toChatRequest(request);
  const answers = generateSeveral(
    { prompts: 1, n, limit: model.info.maxNumSeqs, signal: context.signal },
    (_prompt, choice, signal) => model.chat.chat({ ...chat, sampling: samplingOf(request.sampling, choice) }, signal),
  );
  for await (const { index, event } of answers) yield* machine.push(index, event);
  if (machine.usage === undefined) throw unfinished();
  context.usage = machine.usage;
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
  const { messages, tools, sampling, maxTokens, stop, ignoreEos, logprobs, templateVariables, cacheSalt } = request;
  const { toolChoice, parallelToolCalls, responseFormat, addGenerationPrompt, continueFinalMessage } = request;
  return {
    messages,
    ...(tools.length === 0 ? {} : { tools, toolChoice, parallelToolCalls }),
    responseFormat,
    sampling,
    maxTokens,
    ...(stop.length === 0 ? {} : { stop }),
    ignoreEos,
    logprobs,
    templateVariables,
    addGenerationPrompt,
    continueFinalMessage,
    cacheSalt,
  };
}
