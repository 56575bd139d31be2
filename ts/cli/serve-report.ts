/** What `tsserve serve` prints: where it listens, what it loaded, and a line to try. */

import type { LoadedModel } from '../engine/types.js';
import { formatBytes, formatCount, plural } from './format.js';

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** The URL to type on this machine; an address that means "every interface" is reached by localhost. */
export function serverUrl({ host, port }: Address): string {
  const name = host === '0.0.0.0' || host === '::' || host === '127.0.0.1' ? 'localhost' : host;
  return `http://${name.includes(':') ? `[${name}]` : name}:${port}`;
}

/** Lines about a loaded model. Warnings stand last, where they are read. */
export function describeModel(model: LoadedModel): string {
  return [
    `loaded ${model.id} in ${model.loadSeconds.toFixed(1)} s`,
    ...rowsOf(model).map(([name, value]) => `  ${name.padEnd(13)} ${value}`),
    ...model.warnings.map((warning) => `  warning: ${warning}`),
  ].join('\n');
}

type Row = readonly [name: string, value: string];

function rowsOf(model: LoadedModel): readonly Row[] {
  const size = `${model.family}, ${formatCount(model.parameters)} parameters, vocabulary ${model.vocabSize}`;
  const weights = `${model.weightFormat}, ${formatBytes(model.weightBytes)}`;
  const device = `${model.device}, ${model.cpuLevel}, ${model.dtype}, ${plural(model.threads, 'thread')}`;
  return [
    ['architecture', size],
    ['weights', weights],
    ...(model.kind === 'speech' ? [['speech', languages(model)] as const] : memoryRows(model)),
    ['device', device],
  ];
}

function languages({ languages: codes = [] }: LoadedModel): string {
  return codes.length === 0 ? 'English only' : plural(codes.length, 'language');
}

function memoryRows(model: LoadedModel): readonly Row[] {
  const context =
    model.maxModelLen === model.contextLength
      ? plural(model.maxModelLen, 'token')
      : `${plural(model.maxModelLen, 'token')} (the model was made for ${model.contextLength})`;
  const type = model.kvCacheType === undefined ? '' : ` (${model.kvCacheType})`;
  const blocks = `${model.kvBlocks} blocks of ${plural(model.blockSize, 'token')}`;
  return [
    ['context', context],
    ['KV memory', `${formatBytes(model.kvBytes)}: ${blocks}${type}`],
    ['batch', `${plural(model.maxNumSeqs, 'sequence')}, ${plural(model.maxBatchTokens, 'token')} per step`],
  ];
}

/** A curl line that works as it is, in a POSIX shell. */
export function curlLine(url: string, id: string, hasTemplate: boolean, needsKey: boolean): string {
  const key = keyFlag(needsKey);
  const [path, body] = hasTemplate
    ? [
        'chat/completions',
        { model: id, messages: [{ role: 'user', content: 'Why is the sky blue?' }], max_tokens: 100 },
      ]
    : ['completions', { model: id, prompt: 'The sky is blue because', max_tokens: 60 }];
  const json = JSON.stringify(body).replaceAll("'", "'\\''");
  return `curl ${url}/v1/${path} -H 'content-type: application/json'${key} -d '${json}'`;
}

/** The same for a speech model. */
export function transcribeLine(url: string, id: string, needsKey: boolean): string {
  const model = id.replaceAll("'", "'\\''");
  return `curl ${url}/v1/audio/transcriptions${keyFlag(needsKey)} -F file=@recording.mp3 -F 'model=${model}'`;
}

function keyFlag(needsKey: boolean): string {
  return needsKey ? ` -H "authorization: Bearer $TSSERVE_API_KEY"` : '';
}
