import { expect } from 'chai';

import { TRANSCRIPTION_FIELDS } from '../ts/protocol/transcriptions.js';
import { BOUNDARY, formBody, type FormPart, RECORDING } from './helpers/form.js';
import { Random } from './helpers/random.js';
import { english, heard, said, transcribed } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';

const NAMES = [...Object.keys(TRANSCRIPTION_FIELDS), 'other', '__proto__', 'constructor', ''];
const SUFFIXES = ['', '', '', '[]', '[0]', '[type]', '[threshold]', '[', '[__proto__]'];
const VALUES = [
  ...['', ' ', 'x', '0', '1', '-1', '0.5', '1e999', 'true', 'False', 'null', 'en', 'auto', 'word', 'segment'],
  ...[
    'json',
    'text',
    'srt',
    'verbose_json',
    'vtt',
    'diarized_json',
    'logprobs',
    'server_vad',
    'org/speech',
    'org/none',
  ],
  ...['[]', '["word"]', '[[', '{', '{"type":"server_vad"}', '{"type":"server_vad","threshold":"x"}', '[null]', '[{}]'],
  ...['\u0000', '\ud800', '🦀', 'x'.repeat(3000), 'a\r\nb', `--${BOUNDARY}`],
];
const FILENAMES = [undefined, '', 'a.wav', '../../etc/passwd', '\u0000', 'x'.repeat(300), '🦀.mp3'];

function parts(random: Random): FormPart[] {
  const some = Array.from({ length: random.below(5) }, (): FormPart => {
    const filename = random.next() < 0.9 ? undefined : random.pick(FILENAMES);
    return {
      name: random.pick(NAMES) + random.pick(SUFFIXES),
      value: random.pick(VALUES),
      ...(filename === undefined ? {} : { filename }),
    };
  });
  const good: FormPart[] = [{ name: 'model', value: 'org/speech' }, RECORDING];
  const all = [...some, ...good.filter(() => random.next() < 0.9)];
  return random.next() < 0.5 ? all : all.reverse();
}

/** Cut off, a piece twice, a byte changed. */
function damaged(random: Random, bytes: Buffer): Buffer {
  const at = random.below(bytes.length + 1);
  switch (random.below(3)) {
    case 0:
      return bytes.subarray(0, at);
    case 1:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(random.below(at + 1))]);
    default:
      bytes[Math.min(at, bytes.length - 1)] = random.below(256);
      return bytes;
  }
}

describe('random forms', () => {
  for (const strict of [false, true]) {
    it(`never are a 5xx${strict ? ', strict' : ''}`, async () => {
      await using app = await ScriptedApp.start(
        [{ id: 'org/speech', transcribe: () => [heard, english, said(0, ' a'), transcribed] }],
        { strict },
      );
      const statuses = new Map<number, number>();
      for (let seed = 1; seed <= 600; seed++) {
        const random = new Random(seed);
        const { headers, body: whole } = formBody(parts(random));
        const body = random.next() < 0.3 ? damaged(random, whole) : whole;
        const path = random.pick(['/v1/audio/transcriptions', '/v1/audio/translations']);
        const answer = await app.call({ method: 'POST', path, headers, body });
        const shown = `seed ${seed}: ${body.toString().slice(0, 500)} → ${answer.text.slice(0, 500)}`;
        expect(answer.status, shown).to.be.lessThan(500);
        if (answer.status >= 400) {
          expect(answer.json.error.message, shown).to.be.a('string').and.not.equal('');
          expect(answer.json.error.message.length, shown).to.be.lessThan(1000);
        }
        statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
      }
      expect(app.log.filter((line) => line.startsWith('error'))).to.deep.equal([]);
      await app.registry.until(() => app.registry.first.held === 0);
      expect(statuses.get(200), String([...statuses])).to.be.greaterThan(50);
      expect(statuses.get(400), String([...statuses])).to.be.greaterThan(50);
    }).timeout(60_000);
  }
});
