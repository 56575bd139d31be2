import type { ServedModel } from '../../app/types.js';
import { foldTextCompletion, TextCompletionMachine } from '../../chat/text-completion-machine.js';
import type { GenerateRequest, GenerationEvent } from '../../engine/types.js';
import {
  COMPLETION_FIELDS,
  type CompletionRequest,
  parseCompletionRequest,
  type Prompt,
  type TextCompletion,
} from '../../protocol/completions.js';
import { acquireModelFor } from '../acquire.js';
import { answer } from '../answer.js';
import { readJson } from '../body.js';
import type { RequestContext } from '../context.js';
import { mapped } from '../mapped.js';
import { generateSeveral, type IndexedEvent, samplingOf } from '../several.js';
import { newId, unfinished, unixSeconds } from './common.js';
import type { Route } from './route.js';

const PATH = '/v1/completions';

export const completions: Route = {
  method: 'POST',
  path: PATH,
  summary: 'continue a raw prompt, streaming or not',
  body: { fields: COMPLETION_FIELDS, required: ['prompt'] },
  answer: { json: 'TextCompletion', event: 'TextCompletion' },
  async handle(context) {
    context.promptParam = 'prompt';
    const request = parseCompletionRequest(await readJson(context), context.parseOptions(PATH));
    await answer(context, request.stream, chunksOf(context, request), foldTextCompletion);
  },
};

async function* chunksOf(context: RequestContext, request: CompletionRequest): AsyncGenerator<TextCompletion> {
  using lease = await acquireModelFor('text', context, request.model);
  const { model } = lease;
  const machine = new TextCompletionMachine({
    id: newId('cmpl'),
    created: unixSeconds(),
    model: model.id,
    includeUsage: request.includeUsage || !request.stream,
    logprobs: request.logprobs !== undefined,
    choices: await echoes(model, request),
  });
  // Not `yield*`, which makes several promises for each value of a list.
  for await (const { index, event } of generateAll(context, request, model)) {
    for (const chunk of machine.push(index, event)) yield chunk;
  }
  if (machine.usage === undefined) throw unfinished();
  context.usage = machine.usage;
}

/** One per choice: all of the first prompt, then all of the second. */
async function echoes(model: ServedModel, request: CompletionRequest): Promise<{ echo?: string }[]> {
  const ofPrompts = await Promise.all(request.prompts.map(async (prompt) => echoOf(model, request, prompt)));
  return ofPrompts.flatMap((echo) => Array.from({ length: request.n }, () => echo));
}

async function echoOf(model: ServedModel, { echo }: CompletionRequest, prompt: Prompt): Promise<{ echo?: string }> {
  if (!echo) return {};
  // Ids are shown as they are, special tokens included: their text is what they stand for.
  return { echo: 'text' in prompt ? prompt.text : await model.engine.detokenize(model.info.handle, prompt.ids, false) };
}

/** The events of all prompts, as they come. One request takes no more than the model runs at once. */
function generateAll(
  context: RequestContext,
  request: CompletionRequest,
  model: ServedModel,
): AsyncIterable<IndexedEvent<GenerationEvent>> {
  const { prompts, n } = request;
  const options = { prompts: prompts.length, n, limit: model.info.maxNumSeqs, signal: context.signal };
  const events = generateSeveral(options, (index, choice, signal) => {
    const prompt = prompts[index] ?? { text: '' };
    return model.engine.generate(toGenerateRequest(request, model, prompt, choice), signal);
  });
  if (n === 1) return events;
  return mapped(events, ({ index, event }) => ({ index, event: index % n === 0 ? event : withoutPrompt(event) }));
}

/** A prompt is counted once, however many answers it gets. */
function withoutPrompt(event: GenerationEvent): GenerationEvent {
  if (event.type !== 'finished') return event;
  return { ...event, usage: { ...event.usage, promptTokens: 0, cachedTokens: 0 } };
}

function toGenerateRequest(
  request: CompletionRequest,
  model: ServedModel,
  prompt: Prompt,
  choice: number,
): GenerateRequest {
  const { maxTokens, stop, stopTokenIds, ignoreEos, sampling, grammar, logprobs, cacheSalt } = request;
  return {
    model: model.info.handle,
    prompt: 'text' in prompt ? { text: prompt.text, addSpecialTokens: request.addSpecialTokens } : prompt,
    maxTokens,
    ...(stop.length === 0 ? {} : { stop }),
    ...(stopTokenIds.length === 0 ? {} : { stopTokenIds }),
    ignoreEos,
    sampling: samplingOf(sampling, choice, model.defaultSeed),
    ...(grammar === undefined ? {} : { constraint: { grammar } }),
    logprobs,
    promptLogprobs: request.echo ? logprobs : undefined,
    cacheSalt,
  };
}
