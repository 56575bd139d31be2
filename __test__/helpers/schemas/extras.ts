/** What the product says it adds to OpenAI's answers, as patches of OpenAI's schema. */

import { ANSWER_EXTRAS, type AnswerExtra } from '../../../ts/protocol/answer-extras.js';
import type { Patch } from './published.js';
import type { Schema, SpecDocument } from './rewrite.js';

const COMPONENTS: Readonly<Record<AnswerExtra['of'], string>> = {
  'chat.completion': 'CreateChatCompletionResponse',
  'chat.completion.chunk': 'CreateChatCompletionStreamResponse',
  text_completion: 'CreateCompletionResponse',
  response: 'Response',
  'response.output_text.delta': 'ResponseTextDeltaEvent',
  model: 'Model',
};

export function extraPatches(spec: SpecDocument, extras: readonly AnswerExtra[] = ANSWER_EXTRAS): Patch[] {
  return extras.map(({ of, at, schema, note }) => {
    const steps = at.split('.');
    const name = steps.pop() ?? '';
    return {
      at: locate(spec, COMPONENTS[of], steps),
      change: (object) => ({ ...object, properties: { ...(object['properties'] as Schema), [name]: schema } }),
      why: `${of}.${at}: ${note}`,
    };
  });
}

/** The pointer of the object that steps of the form `choices[]` lead to. */
function locate(spec: SpecDocument, component: string, steps: readonly string[]): string {
  let at = component;
  for (const step of steps) {
    at = resolve(spec, `${at}/properties/${step.replace('[]', '')}`);
    if (step.endsWith('[]')) at = resolve(spec, `${at}/items`);
  }
  return resolve(spec, at);
}

/** Follows references; of an `allOf` the part that is its own. */
function resolve(spec: SpecDocument, pointer: string): string {
  const schema = pointer.split('/').reduce<Schema>((node, step) => node[step] as Schema, spec.components.schemas);
  if (typeof schema['$ref'] === 'string') return resolve(spec, schema['$ref'].replace('#/components/schemas/', ''));
  if (!Array.isArray(schema['allOf'])) return pointer;
  const own = schema['allOf'].findIndex((part: Schema) => part['$ref'] === undefined);
  return resolve(spec, `${pointer}/allOf/${own}`);
}
