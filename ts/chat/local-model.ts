/** `ChatModel` over the engine: messages → prompt text → generation → chat events. */

import { type Engine, EngineError, type GenerateRequest, type LoadedModel } from '../engine/types.js';
import { BARE_CALLS, pickFormat } from './formats/index.js';
import { formatTokens } from './formats/vocabulary.js';
import { ConstraintMemory, ConstraintPlan } from './constraint.js';
import { type CompiledFormat, compileFormat, OutputParser, parseGeneration, reasoningState } from './output-parser.js';
import { chooseTemplate, toTemplateInput } from './template-input.js';
import type { TemplateRenderer } from './template.js';
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
  const memory = new ConstraintMemory();
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
      // Where a call is all that can come it is one from its first letter on, whatever the model was taught.
      const spoken = offer.forced === undefined ? format : { ...format, tools: format.tools ?? BARE_CALLS };
      const plan = new ConstraintPlan(memory, format, request, offer, reasoningState(format, prompt, continues));
      for (;;) {
        const parser = new OutputParser({ format: spoken, tools: offer.tools, parallel, prompt, continues });
        const generation = engine.generate(toGenerateRequest(info, request, prompt, plan.constraint), signal);
        let begun = false;
        try {
          for await (const event of parseGeneration(generation, parser)) {
            begun = true;
            yield event;
          }
          return;
        } catch (error) {
          if (begun || !(error instanceof EngineError) || !plan.relax(error)) throw error;
        }
      }
    },
  };
}

function toGenerateRequest(
  info: LoadedModel,
  request: ChatRequest,
  prompt: string,
  constraint: GenerateRequest['constraint'],
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
