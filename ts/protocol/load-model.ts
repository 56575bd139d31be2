/** `POST /load_model` and `POST /reset`: the reference's own, not OpenAI's. */

import { checkFields, type FieldTable, type ParseOptions } from './field-table.js';
import { fieldsOf } from './fields.js';
import { parseModel } from './sampling.js';

export const LOAD_MODEL_FIELDS = {
  model: { status: 'honoured', note: 'may be left out where one model is served' },
} as const satisfies FieldTable;

/** The id to load; undefined: the one model that is served. */
export function parseLoadModelRequest(body: unknown, options: ParseOptions): string | undefined {
  const fields = fieldsOf(body, '');
  checkFields(fields, LOAD_MODEL_FIELDS, options);
  return parseModel(fields);
}

/** In this order; `download` only for files that are fetched. */
export type LoadStage = 'processor' | 'config' | 'download' | 'weights';

/** Events of the stream: any number of `loading`, then one of the others, then the stream ends, without `[DONE]`. */
export type LoadEvent =
  | {
      readonly status: 'loading';
      readonly model: string;
      readonly stage: LoadStage;
      /** Bytes of a download, hundredths of the weights. */
      readonly progress?: { readonly current: number; readonly total: number };
    }
  | { readonly status: 'ready'; readonly model: string; readonly cached: boolean }
  /** `code` as in error envelopes. */
  | { readonly status: 'error'; readonly model: string; readonly message: string; readonly code: string | null };

export interface ResetResult {
  readonly status: 'ok';
  /** Ids of what was unloaded. */
  readonly unloaded: readonly string[];
}
