/**
 * What an answer is held to, and what happens where the engine cannot use it. Whoever demands a call or a strict schema is
 * told why; under `auto` a schema that the engine does not understand is no reason to refuse the conversation: the tool is
 * called without being held to it.
 */

import { createHash } from 'node:crypto';

import { EngineError } from '../engine/types.js';
import type { CompiledFormat, ReasoningState } from './output-parser.js';
import { guidedGrammar, type Held, responseGrammar, toolGrammar, triggeredToolGrammar } from './tool-grammar.js';
import type { ToolOffer } from './tool-offer.js';
import type { ChatRequest, ToolDefinition } from './types.js';

/** What was given up of a request's grammar. */
interface Relaxed {
  /** Tools whose arguments are any object. */
  readonly loose: ReadonlySet<string>;
  /** Calls are not held to anything. */
  readonly free: boolean;
}

const NOTHING: Relaxed = { loose: new Set(), free: false };

/** Requests whose tools could not be used as they are, remembered so that the next one does not try again. */
const MAX_REMEMBERED = 256;

/** What earlier requests have shown of one model's grammars. */
export class ConstraintMemory {
  private readonly known = new Map<string, Relaxed>();

  recall(key: string): Relaxed {
    return this.known.get(key) ?? NOTHING;
  }

  remember(key: string, relaxed: Relaxed): void {
    this.known.delete(key);
    this.known.set(key, relaxed);
    const [oldest] = this.known.keys();
    if (this.known.size > MAX_REMEMBERED && oldest !== undefined) this.known.delete(oldest);
  }
}

/** One request's constraint, less of it after each refusal. */
export class ConstraintPlan {
  private relaxed: Relaxed;
  private held: Held | undefined;
  private readonly key: string;

  constructor(
    private readonly memory: ConstraintMemory,
    private readonly format: CompiledFormat,
    private readonly request: ChatRequest,
    private readonly offer: ToolOffer,
    private readonly reasoning: ReasoningState,
  ) {
    const { tools } = offer;
    this.key = createHash('sha256')
      .update(JSON.stringify([format.name, request.parallelToolCalls, request.responseFormat, request.grammar, tools]))
      .digest('base64');
    this.relaxed = this.mayRelax ? memory.recall(this.key) : NOTHING;
    this.held = this.make();
  }

  get constraint(): Held['constraint'] | undefined {
    return this.held?.constraint;
  }

  /**
   * After the engine has refused the constraint: whether there is another one to try.
   * @throws EngineError that names the tool, where the refusal stands and the fault is in a tool's schema
   */
  relax(error: EngineError): boolean {
    const { held } = this;
    if (held === undefined || error.code !== 'invalid_request' || error.param !== 'constraint') return false;
    const { line, reason } = readRefusal(error.message);
    const owner = line === undefined ? undefined : held.owners[line];
    const relaxed = this.mayRelax ? this.without(owner, line !== undefined) : undefined;
    if (relaxed === undefined) throw refusal(error, owner, reason, this.blamed(line !== undefined));
    this.relaxed = relaxed;
    this.held = this.make();
    this.memory.remember(this.key, relaxed);
    return true;
  }

  /** A demanded call is a promise. */
  private get mayRelax(): boolean {
    return this.offer.forced === undefined && this.offer.tools.length > 0;
  }

  /** @param located the engine said where: either in this tool's schema, or in what is no tool's */
  private without(owner: string | undefined, located: boolean): Relaxed | undefined {
    const { loose } = this.relaxed;
    const open = this.offer.tools.filter((tool) => tool.strict !== true && !loose.has(tool.name));
    if (owner !== undefined) {
      return open.some(({ name }) => name === owner) ? { loose: new Set([...loose, owner]), free: false } : undefined;
    }
    if (located) return undefined;
    // Too much of it, or too long to compile: nobody knows whose fault it is.
    if (open.length > 0) return { loose: new Set([...loose, ...open.map(({ name }) => name)]), free: false };
    const { grammar, responseFormat } = this.request;
    const promised = grammar !== undefined || (responseFormat !== undefined && responseFormat.type !== 'text');
    return promised || this.offer.tools.some((tool) => tool.strict === true) ? undefined : { loose, free: true };
  }

  private blamed(located: boolean): Blamed {
    const { grammar, responseFormat } = this.request;
    if (this.offer.forced !== undefined || (grammar ?? responseFormat) === undefined) return 'tools';
    if (grammar !== undefined) return 'grammar';
    return located || this.offer.tools.length === 0 ? 'format' : 'both';
  }

  private make(): Held | undefined {
    const { format, reasoning } = this;
    const { grammar, responseFormat, parallelToolCalls: parallel = true } = this.request;
    const { forced } = this.offer;
    const tools = this.offer.tools.map((tool) => (this.relaxed.loose.has(tool.name) ? loosened(tool) : tool));
    if (forced !== undefined) return toolGrammar(format, tools, forced, parallel, reasoning);
    if (grammar !== undefined) return guidedGrammar(format, grammar, tools, parallel, reasoning);
    const whole = responseFormat && responseGrammar(format, responseFormat, tools, parallel, reasoning);
    if (whole !== undefined) return whole;
    return tools.length === 0 || this.relaxed.free ? undefined : triggeredToolGrammar(format, tools, parallel);
  }
}

type Blamed = 'tools' | 'format' | 'grammar' | 'both';

/** What is at fault, and the engine's name for the field. */
const BLAME: Readonly<Record<Blamed, readonly [string, string]>> = {
  tools: ['the tools', 'tools'],
  format: ['the response format', 'constraint'],
  grammar: ['the grammar', 'constraint'],
  both: ['the response format together with the tools', 'constraint'],
};

function loosened(tool: ToolDefinition): ToolDefinition {
  return { ...tool, parameters: { type: 'object' } };
}

/** llguidance says where (`at 3(5): …`) and shows the lines around it, which are of our own making. */
function readRefusal(message: string): { readonly line: number | undefined; readonly reason: string } {
  const said = message.replace(/^the grammar cannot be used: /, '');
  const [place, line] = /^at (\d+)\(\d+\): /.exec(said) ?? [];
  if (place === undefined) return { line: undefined, reason: said };
  const [reason = ''] = said
    .slice(place.length)
    .replace(/^failed to compile JSON schema: /, '')
    .split(/ \d+ \| /);
  return { line: Number(line) - 1, reason };
}

function refusal(error: EngineError, owner: string | undefined, reason: string, what: Blamed): EngineError {
  const [subject, param] =
    owner === undefined ? BLAME[what] : ([`the parameters of the tool '${owner}'`, 'tools'] as const);
  return new EngineError('invalid_request', `${subject} cannot be enforced: ${reason}`, param, { cause: error });
}
