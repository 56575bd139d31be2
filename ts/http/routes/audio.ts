import type { ServedModel } from '../../app/types.js';
import type { TranscriptionEvent } from '../../engine/speech.js';
import { missingParameter } from '../../protocol/errors.js';
import type { FieldTable, ParseOptions } from '../../protocol/field-table.js';
import type { JsonObject } from '../../protocol/fields.js';
import { formObject } from '../../protocol/form.js';
import {
  parseTranscriptionRequest,
  parseTranslationRequest,
  SPEECH_FORM,
  TRANSCRIPTION_FIELDS,
  type TranscriptionRequest,
  TRANSLATION_FIELDS,
} from '../../protocol/transcriptions.js';
import { type RenderOptions, renderTranscript } from '../../speech/formats.js';
import { transcriptEvents } from '../../speech/stream.js';
import { TranscriptFold } from '../../speech/transcript.js';
import { acquireModelFor } from '../acquire.js';
import { streamChunks } from '../answer.js';
import type { RequestContext } from '../context.js';
import { readForm } from '../multipart.js';
import { sendJson, sendText } from '../respond.js';
import type { TranscriptionSlot } from '../transcription-slots.js';
import type { Upload } from '../uploads.js';
import type { Route } from './route.js';

const VTT = 'text/vtt';
/** SubRip too: it has no registered type, and what shows text shows this. */
const PLAIN = 'text/plain';

export const transcriptions = speechRoute(
  '/v1/audio/transcriptions',
  'the text of a recording, streaming or not, or its subtitles',
  TRANSCRIPTION_FIELDS,
  parseTranscriptionRequest,
);

export const translations = speechRoute(
  '/v1/audio/translations',
  'the text of a recording in English',
  TRANSLATION_FIELDS,
  parseTranslationRequest,
);

function speechRoute(
  path: string,
  summary: string,
  fields: FieldTable,
  parse: (form: JsonObject, options: ParseOptions) => TranscriptionRequest,
): Route {
  return {
    method: 'POST',
    path,
    summary,
    body: { fields, required: ['file'], form: true },
    answer: { json: 'Transcript', event: 'TranscriptEvent', text: [PLAIN, VTT] },
    async handle(context) {
      const options = context.parseOptions(path);
      using slot = context.services.transcriptions.enter();
      await using form = await readForm(context, 'file', options.warn);
      const { file, entries } = form;
      if (file === undefined) throw missingParameter('file', 'the recording, as a part of the form with a file name');
      const request = parse({ ...formObject(entries, SPEECH_FORM), file }, options);
      await answerTranscription(context, request, speechEvents(context, slot, request, file));
    },
  };
}

/** From the wait for its turn on, so that a stream shows that it is alive. */
async function* speechEvents(
  context: RequestContext,
  slot: TranscriptionSlot,
  request: TranscriptionRequest,
  file: Upload,
): AsyncGenerator<TranscriptionEvent> {
  await slot.turn(context.signal);
  using lease = await acquireModelFor('speech', context, request.model);
  const { engine, info, defaultSeed }: ServedModel = lease.model;
  const seed = request.speech.seed ?? defaultSeed;
  const asked = { ...request.speech, model: info.handle, audio: file.audio, ...(seed === undefined ? {} : { seed }) };
  for await (const event of engine.transcribe(asked, context.signal)) {
    if (event.type === 'started') context.audioSeconds = event.duration;
    yield event;
  }
}

async function answerTranscription(
  context: RequestContext,
  request: TranscriptionRequest,
  events: AsyncIterable<TranscriptionEvent>,
): Promise<void> {
  const { format, granularities, speech } = request;
  const options: RenderOptions = { task: speech.task, format, granularities, logprobs: speech.logprobs ?? false };
  if (request.stream) {
    await streamChunks(context, transcriptEvents(events, options));
    return;
  }
  const fold = new TranscriptFold();
  for await (const event of events) fold.push(event);
  const answer = renderTranscript(fold.transcript, options);
  if (typeof answer !== 'string') sendJson(context, 200, answer);
  else sendText(context, 200, answer, { 'content-type': `${format === 'vtt' ? VTT : PLAIN}; charset=utf-8` });
}
