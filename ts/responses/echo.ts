/** What a response says of its request, with the defaults that were in force. */

import type { LoadedModel } from '../engine/types.js';
import type { McpRequireApproval, McpToolFilter } from '../protocol/mcp.js';
import type { ResponseEcho } from '../protocol/response-object.js';
import type { EchoedTool, ResponseMcpFilter, ResponseMcpTool, ResponseTool } from '../protocol/response-tools.js';
import type { CreateResponse } from '../protocol/responses.js';

/** @param info undefined while the model is not loaded: its defaults are not known yet */
export function toEcho(request: CreateResponse, model: string, info: LoadedModel | undefined): ResponseEcho {
  const defaults = samplingDefaults(info?.generationConfig);
  return {
    model,
    instructions: request.instructions ?? null,
    previous_response_id: request.previousResponseId ?? null,
    conversation: request.conversation === undefined ? null : { id: request.conversation },
    metadata: request.metadata,
    tools: request.tools.map(toEchoedTool),
    tool_choice: request.toolChoice,
    parallel_tool_calls: request.parallelToolCalls,
    text: { format: request.format, verbosity: request.verbosity },
    reasoning: { effort: request.reasoningEffort ?? null, summary: request.reasoningSummary ?? null },
    temperature: request.sampling.temperature ?? defaults.temperature,
    top_p: request.sampling.topP ?? defaults.topP,
    presence_penalty: request.penalties.presence,
    frequency_penalty: request.penalties.frequency,
    top_logprobs: request.logprobs ?? 0,
    max_output_tokens: request.maxOutputTokens ?? null,
    max_tool_calls: request.maxToolCalls ?? null,
    truncation: request.truncation,
    store: request.store,
    background: request.background,
    service_tier: 'default',
    safety_identifier: request.safetyIdentifier ?? null,
    prompt_cache_key: request.promptCacheKey ?? null,
  };
}

/** What authenticates to a tool's server is the caller's: it is neither stored nor shown. */
function toEchoedTool(tool: ResponseTool): EchoedTool {
  if (tool.type === 'function') return tool;
  const { serverLabel, serverUrl, serverDescription, allowedTools, requireApproval } = tool;
  return {
    type: 'mcp',
    server_label: serverLabel,
    ...(serverUrl === undefined ? {} : { server_url: `${serverUrl.origin}${serverUrl.pathname}` }),
    ...(serverDescription === undefined ? {} : { server_description: serverDescription }),
    ...(allowedTools === undefined ? {} : { allowed_tools: toAllowed(allowedTools) }),
    require_approval: typeof requireApproval === 'string' ? requireApproval : toEchoedApproval(requireApproval),
  };
}

function toAllowed(filter: McpToolFilter): readonly string[] | ResponseMcpFilter {
  return filter.readOnly === undefined && filter.toolNames !== undefined ? filter.toolNames : toFilter(filter);
}

function toEchoedApproval({ always, never }: Exclude<McpRequireApproval, string>): ResponseMcpTool['require_approval'] {
  return {
    ...(always === undefined ? {} : { always: toFilter(always) }),
    ...(never === undefined ? {} : { never: toFilter(never) }),
  };
}

function toFilter({ toolNames, readOnly }: McpToolFilter): ResponseMcpFilter {
  return {
    ...(toolNames === undefined ? {} : { tool_names: toolNames }),
    ...(readOnly === undefined ? {} : { read_only: readOnly }),
  };
}

/** Greedy, unless the checkpoint's generation_config.json asks for sampling. */
function samplingDefaults(config: LoadedModel['generationConfig']): { temperature: number; topP: number } {
  if (config?.['do_sample'] !== true) return { temperature: 0, topP: 1 };
  const { temperature, top_p: topP } = config;
  return { temperature: typeof temperature === 'number' ? temperature : 1, topP: typeof topP === 'number' ? topP : 1 };
}
