/** `ChatModel` over the engine: messages → prompt text → generation → chat events. */

import type { Engine, GenerateRequest, LoadedModel } from '../engine/types.js';
import { pickFormat } from './formats/index.js';
import { formatTokens } from './formats/vocabulary.js';
import { type CompiledFormat, compileFormat, OutputParser, parseGeneration, reasoningState } from './output-parser.js';
import { chooseTemplate, toTemplateInput } from './template-input.js';
import type { TemplateRenderer } from './template.js';
import { type Constraint, guidedGrammar, responseGrammar, toolGrammar, triggeredToolGrammar } from './tool-grammar.js';
import { offerTools, type ToolOffer } from './tool-offer.js';
import type { ChatModel, ChatRequest } from './types.js';

export interface LocalModelOptions {
  readonly engine: Engine;
  readonly info: LoadedModel;
  readonly templates: TemplateRenderer;
  /** For the template, where a request does not say. */
  readonly templateVariables?: ChatRequest['templateVariables'];
}

export interface LocalModel extends ChatModel {
  /** The prompt `chat` would send. Throws EngineError `template_error` or `invalid_request`. */
  applyChatTemplate(request: ChatRequest, signal?: AbortSignal): Promise<string>;
}

export function createLocalModel({ engine, info, templates, templateVariables }: LocalModelOptions): LocalModel {
  /** By template: the format, for this vocabulary. */
  const formats = new Map<string, CompiledFormat>();
  const formatOf = async (template: string): Promise<CompiledFormat> => {
    const known = formats.get(template);
    if (known !== undefined) return known;
    const format = pickFormat(template, info.family);
    const compiled = compileFormat(format, await formatTokens(engine, info.handle, format));
    formats.set(template, compiled);
    return compiled;
  };
  const render = (request: ChatRequest, offer: ToolOffer, signal?: AbortSignal): Promise<string> => {
    const input = toTemplateInput(info, { ...request, tools: offer.tools });
    // Below all that follows from the request.
    return templates.render({ ...input, variables: { ...templateVariables, ...input.variables } }, signal);
  };

  return {
    applyChatTemplate: async (request, signal) => render(request, offerTools(request), signal),
    async *chat(request, signal) {
      const offer = offerTools(request);
      const prompt = await render(request, offer, signal);
      const format = await formatOf(chooseTemplate(info, offer.tools));
      const continues = request.continueFinalMessage ?? false;
      const parallel = request.parallelToolCalls ?? true;
      const constraint = constraintOf(format, request, offer, prompt);
      const parser = new OutputParser({ format, tools: offer.tools, parallel, prompt, continues });
      const generation = engine.generate(toGenerateRequest(info, request, prompt, constraint), signal);
      yield* parseGeneration(generation, parser);
    },
  };
}

function constraintOf(
  format: CompiledFormat,
  {
    grammar: wanted,
    responseFormat,
    parallelToolCalls: parallel = true,
    continueFinalMessage: continues = false,
  }: ChatRequest,
  { tools, forced }: ToolOffer,
  prompt: string,
): Constraint | undefined {
  const reasoning = reasoningState(format, prompt, continues);
  if (forced !== undefined) return { grammar: toolGrammar(format, tools, forced, parallel, reasoning) };
  if (wanted !== undefined) return { grammar: guidedGrammar(format, wanted, tools, parallel, reasoning) };
  const grammar = responseFormat && responseGrammar(format, responseFormat, tools, parallel, reasoning);
  if (grammar !== undefined) return { grammar };
  return tools.length === 0 ? undefined : triggeredToolGrammar(format, tools, parallel);
}

function toGenerateRequest(
  info: LoadedModel,
  request: ChatRequest,
  prompt: string,
  constraint: Constraint | undefined,
): GenerateRequest {
  const { sampling, maxTokens, stop, stopTokenIds, ignoreEos, logprobs, cacheSalt } = request;
  return {
    model: info.handle,
    // The template has written the special tokens itself.
    prompt: { text: prompt, addSpecialTokens: false },
    ...(sampling === undefined ? {} : { sampling }),
    ...(maxTokens === undefined ? {} : { maxTokens }),
    ...(stop === undefined ? {} : { stop }),
    ...(stopTokenIds === undefined ? {} : { stopTokenIds }),
    ...(ignoreEos === undefined ? {} : { ignoreEos }),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...(cacheSalt === undefined ? {} : { cacheSalt }),
    ...(constraint === undefined ? {} : { constraint }),
  };
}
