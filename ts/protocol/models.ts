/** `GET /v1/models` and `GET /v1/models/{id}`: what goes out. */

export interface WireModel {
  readonly id: string;
  readonly object: 'model';
  /** Unix seconds. */
  readonly created: number;
  readonly owned_by: string;
  /** Not OpenAI's: whether asking for it needs a load first. */
  readonly state: 'ready' | 'loading' | 'available';
  /** Not OpenAI's: served context in tokens, once known. */
  readonly context_length?: number;
  /** The same under vLLM's name. */
  readonly max_model_len?: number;
}

export interface WireModelList {
  readonly object: 'list';
  readonly data: readonly WireModel[];
}
