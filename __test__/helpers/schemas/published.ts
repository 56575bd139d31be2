/** A published schema as an oracle: patched by a list, strict about properties, with what is wrong said in short. */

import { readFileSync } from 'node:fs';

import type { ErrorObject, ValidateFunction } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';

import { definitionsOf, type Openness, rootSchema, type Schema, type SpecDocument } from './rewrite.js';

/** One place where a schema is not what it should be, and why. */
export interface Patch {
  /** A JSON pointer, or where it has no slash in front one below `components.schemas`: `Response/allOf/2/properties/usage`. */
  readonly at: string;
  readonly change: (schema: Schema) => Schema;
  readonly why: string;
}

const folder = new URL('../../../fixtures/specs/', import.meta.url);

export function readSpec(file: string): SpecDocument {
  return JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as SpecDocument;
}

export class PublishedSchema {
  private readonly ajv = new Ajv2020({ strict: false, validateFormats: false });
  private readonly compiled = new Map<string, ValidateFunction>();
  readonly spec: SpecDocument;

  /**
   * @param openness of objects: `closed` ones hold declared properties only
   * @param patches applied in order
   * @throws Error for a patch that changes nothing
   */
  constructor(
    spec: SpecDocument,
    private readonly openness: Openness,
    patches: readonly Patch[],
  ) {
    this.spec = patched(spec, patches);
    this.ajv.addSchema({ $id: 'spec', $defs: definitionsOf(this.spec, openness) });
  }

  /** What is wrong with a value by a component's schema; undefined if nothing is. */
  problem(component: string, value: unknown): string | undefined {
    if (this.spec.components.schemas[component] === undefined) throw new Error(`no component ${component}`);
    return this.problemBy({ $ref: `#/components/schemas/${component}` }, value);
  }

  /** The same by any schema of the document. */
  problemBy(schema: Schema, value: unknown): string | undefined {
    const validate = this.validator(schema);
    if (validate(value)) return undefined;
    const errors = validate.errors ?? [];
    // Of a union's fifty members the one that the value means says what is wrong.
    const member = memberFor(this.spec, schema, value);
    return (member === undefined ? undefined : this.problem(member, value)) ?? describe(errors);
  }

  /** The schema of what an endpoint answers; undefined if the document does not tell. @param path as requested, without `/v1` */
  answerOf(method: string, path: string, contentType: string): Schema | undefined {
    const template = templateFor(Object.keys(this.spec.paths), path);
    const operation = template === undefined ? undefined : this.spec.paths[template]?.[method.toLowerCase()];
    return operation?.responses[200].content[contentType]?.schema;
  }

  private validator(schema: Schema): ValidateFunction {
    const key = JSON.stringify(schema);
    let validate = this.compiled.get(key);
    if (validate === undefined) {
      const root = rootSchema(schema, this.openness);
      validate = this.ajv.compile(JSON.parse(JSON.stringify(root).replaceAll('"#/$defs/', '"spec#/$defs/')) as Schema);
      this.compiled.set(key, validate);
    }
    return validate;
  }
}

/** A copy of the document with the patches in it. */
function patched(spec: SpecDocument, patches: readonly Patch[]): SpecDocument {
  const copy = structuredClone(spec);
  for (const { at, change } of patches) {
    const pointer = at.startsWith('/') ? at.slice(1) : `components/schemas/${at}`;
    const steps = pointer.split('/').map((step) => step.replaceAll('~1', '/'));
    const last = steps.pop() ?? '';
    const parent = steps.reduce<Schema | undefined>((node, step) => node?.[step] as Schema | undefined, copy);
    const before = parent?.[last] as Schema | undefined;
    if (parent === undefined || before === undefined) throw new Error(`the patch at ${at} leads nowhere`);
    const after = change(structuredClone(before));
    if (JSON.stringify(after) === JSON.stringify(before)) throw new Error(`the patch at ${at} changes nothing`);
    parent[last] = after;
  }
  return copy;
}

/** `/responses/resp_1/cancel` → `/responses/{response_id}/cancel`; a plain path goes before a template. */
export function templateFor(templates: readonly string[], path: string): string | undefined {
  if (templates.includes(path)) return path;
  return templates.find((template) => {
    // Ids of models hold slashes.
    const pattern = template.replace(/\{model\}|(?<=\/models\/)\{id\}/g, '.+').replace(/\{\w+\}/g, '[^/]+');
    return new RegExp(`^${pattern}$`).test(path);
  });
}

function memberFor({ components }: SpecDocument, schema: Schema, value: unknown): string | undefined {
  const type = (value as { type?: unknown } | null)?.type;
  const name = String(schema['$ref'] ?? '').replace('#/components/schemas/', '');
  const union = schema['anyOf'] ?? schema['oneOf'] ?? components.schemas[name]?.['anyOf'];
  if (type === undefined || !Array.isArray(union)) return undefined;
  const members = union.map((member: Schema) => String(member['$ref']).replace('#/components/schemas/', ''));
  return members.find((member) => {
    const own = components.schemas[member]?.['properties']?.type;
    return own?.const === type || own?.enum?.includes(type) === true;
  });
}

/** The deepest errors: those above them only repeat that something below is wrong. */
function describe(errors: readonly ErrorObject[]): string {
  const depth = (error: ErrorObject): number => error.instancePath.split('/').length;
  const deepest = Math.max(...errors.map(depth));
  const lines = errors
    .filter((error) => depth(error) === deepest)
    .map(({ instancePath, message, params }) => {
      const extra = (params as { unevaluatedProperty?: string; additionalProperty?: string }).unevaluatedProperty;
      return `${instancePath || 'the value'} ${message ?? ''}${extra === undefined ? '' : ` (${extra})`}`;
    });
  return [...new Set(lines)].slice(0, 8).join('; ');
}
