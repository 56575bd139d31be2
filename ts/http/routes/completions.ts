import type { ServedModel } from '../../app/types.js';
import { foldTextCompletion, TextCompletionMachine } from '../../chat/text-completion-machine.js';
import type { GenerateRequest, GenerationEvent } from '../../engine/types.js';
import {
  type CompletionRequest,
  parseCompletionRequest,
  type Prompt,
  type TextCompletion,
} from '../../protocol/completions.js';
import { acquireModel } from '../acquire.js';
import { answer } from '../answer.js';
import { readJson } from '../body.js';
import type { RequestContext } from '../context.js';
import { mergeConcurrently } from '../merge.js';
import { newId, unfinished, unixSeconds } from './common.js';
import type { Route } from './route.js';

const PATH = '/v1/completions';

export const completions: Route = {
  method: 'POST',
  path: PATH,
  summary: 'continue a raw prompt, streaming or not',
  async handle(context) {
    context.promptParam = 'prompt';
    const request = parseCompletionRequest(await readJson(context), context.parseOptions(PATH));
    await answer(context, request.stream, chunksOf(context, request), foldTextCompletion);
  },
};

async function* chunksOf(context: RequestContext, request: CompletionRequest): AsyncGenerator<TextCompletion> {
  using lease = await acquireModel(context, request.model);
  const { model } = lease;
  const machine = new TextCompletionMachine({
    id: newId('cmpl'),
    created: unixSeconds(),
    model: model.id,
    includeUsage: request.includeUsage || !request.stream,
    logprobs: request.logprobs !== undefined,
    choices: await Promise.all(request.prompts.map(async (prompt) => echoOf(model, request, prompt))),
  });
  for await (const { index, event } of generateAll(context, request, model)) yield* machine.push(index, event);
  if (machine.usage === undefined) throw unfinished();
  context.usage = machine.usage;
}

async function echoOf(model: ServedModel, { echo }: CompletionRequest, prompt: Prompt): Promise<{ echo?: string }> {
  if (!echo) return {};
  // Ids are shown as they are, special tokens included: their text is what they stand for.
  return { echo: 'text' in prompt ? prompt.text : await model.engine.detokenize(model.info.handle, prompt.ids, false) };
}

interface IndexedEvent {
  readonly index: number;
  readonly event: GenerationEvent;
}

/** The events of all prompts, as they come. One request takes no more than the model runs at once. */
async function* generateAll(
  context: RequestContext,
  request: CompletionRequest,
  model: ServedModel,
): AsyncGenerator<IndexedEvent> {
  const stop = new AbortController();
  const signal = AbortSignal.any([context.signal, stop.signal]);
  const sources = request.prompts.map(
    (prompt, index) =>
      async function* (): AsyncGenerator<IndexedEvent> {
        const generation = model.engine.generate(toGenerateRequest(request, model, prompt), signal);
        for await (const event of generation) yield { index, event };
      },
  );
  yield* mergeConcurrently(sources, model.info.maxNumSeqs, () => stop.abort());
}

function toGenerateRequest(request: CompletionRequest, model: ServedModel, prompt: Prompt): GenerateRequest {
  const { maxTokens, stop, ignoreEos, sampling, grammar, logprobs, cacheSalt } = request;
  return {
    model: model.info.handle,
    prompt: 'text' in prompt ? { text: prompt.text, addSpecialTokens: request.addSpecialTokens } : prompt,
    maxTokens,
    ...(stop.length === 0 ? {} : { stop }),
    ignoreEos,
    sampling,
    ...(grammar === undefined ? {} : { constraint: { grammar } }),
    logprobs,
    promptLogprobs: request.echo ? logprobs : undefined,
    cacheSalt,
  };
}
