import { expect } from 'chai';

import { ApiError } from '../ts/protocol/errors.js';
import { type FormEntries, formObject } from '../ts/protocol/form.js';
import {
  parseTranscriptionRequest,
  parseTranslationRequest,
  SPEECH_FORM,
  type TranscriptionRequest,
} from '../ts/protocol/transcriptions.js';

const FILE = { name: 'talk.wav', size: 3 };

function parse(
  entries: FormEntries,
  warnings: string[] = [],
  strict = false,
  file: unknown = FILE,
): TranscriptionRequest {
  const warn = (field: string): void => void warnings.push(field);
  return parseTranscriptionRequest({ ...formObject(entries, SPEECH_FORM), file }, { strict, warn });
}

function failure(call: () => unknown): ApiError {
  try {
    call();
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
  throw new Error('it was taken');
}

describe('protocol: transcriptions', () => {
  it('asks for nothing that was not asked for', () => {
    expect(parse([])).to.deep.equal({
      model: undefined,
      format: 'json',
      stream: false,
      granularities: { segments: true, words: false },
      speech: { task: 'transcribe' },
    });
  });

  it('reads every field', () => {
    const request = parse([
      ['model', 'm'],
      ['response_format', 'verbose_json'],
      ['language', 'de'],
      ['prompt', 'So.'],
      ['keywords[]', 'Kubernetes, the thing'],
      ['keywords[]', 'gRPC'],
      ['temperature', '0.4'],
      ['timestamp_granularities[]', 'word'],
      ['chunking_strategy', 'auto'],
      ['beam_size', '5'],
      ['best_of', '3'],
      ['condition_on_previous_text', 'false'],
      ['hallucination_silence_threshold', '2'],
      ['vad_filter', 'True'],
      ['seed', '7'],
    ]);
    expect(request).to.deep.equal({
      model: 'm',
      format: 'verbose_json',
      stream: false,
      granularities: { segments: false, words: true },
      speech: {
        task: 'transcribe',
        language: 'de',
        prompt: 'Kubernetes, the thing, gRPC. So.',
        carryPrompt: true,
        temperature: 0.4,
        chunking: { type: 'batched' },
        beamSize: 5,
        bestOf: 3,
        conditionOnPreviousText: false,
        hallucinationSilenceThreshold: 2,
        skipSilence: true,
        seed: 7,
        wordTimestamps: true,
      },
    });
  });

  const lists: readonly FormEntries[] = [
    [
      ['timestamp_granularities[]', 'word'],
      ['timestamp_granularities[]', 'segment'],
    ],
    [
      ['timestamp_granularities', 'word'],
      ['timestamp_granularities', 'segment'],
    ],
    [
      ['timestamp_granularities[0]', 'word'],
      ['timestamp_granularities[1]', 'segment'],
    ],
    [['timestamp_granularities', 'word, segment']],
    [['timestamp_granularities', '["word","segment"]']],
    [['timestamp_granularities[]', '["word", "segment"]']],
  ];
  for (const entries of lists) {
    it(`reads a list written as ${entries.map((entry) => entry.join('=')).join('&')}`, () => {
      const { granularities } = parse([...entries, ['response_format', 'verbose_json']]);
      expect(granularities).to.deep.equal({ segments: true, words: true });
    });
  }

  const objects: readonly FormEntries[] = [
    [
      ['chunking_strategy[type]', 'server_vad'],
      ['chunking_strategy[threshold]', '0.6'],
      ['chunking_strategy[prefix_padding_ms]', '100'],
      ['chunking_strategy[silence_duration_ms]', '500'],
    ],
    [['chunking_strategy', '{"type":"server_vad","threshold":0.6,"prefix_padding_ms":100,"silence_duration_ms":500}']],
  ];
  for (const entries of objects) {
    it(`reads an object written as ${entries.map((entry) => entry.join('=')).join('&')}`, () => {
      expect(parse(entries).speech.chunking).to.deep.equal({
        type: 'batched',
        threshold: 0.6,
        prefixPaddingMs: 100,
        silenceDurationMs: 500,
      });
    });
  }

  it('takes an empty value for none', () => {
    const names = ['model', 'language', 'prompt', 'temperature', 'response_format', 'stream', 'chunking_strategy'];
    const lists = ['timestamp_granularities[]', 'include[]', 'languages', 'known_speaker_names[]'];
    expect(parse([...names, ...lists].map((name) => [name, '']))).to.deep.equal(parse([]));
  });

  it('streams json and text, and nothing else, as at OpenAI', () => {
    for (const format of ['json', 'text']) {
      expect(
        parse([
          ['response_format', format],
          ['stream', 'true'],
        ]).stream,
        format,
      ).to.equal(true);
    }
    for (const format of ['srt', 'vtt', 'verbose_json']) {
      const warnings: string[] = [];
      expect(
        parse(
          [
            ['response_format', format],
            ['stream', 'true'],
          ],
          warnings,
        ).stream,
        format,
      ).to.equal(false);
      expect(warnings).to.deep.equal([`stream with ${format}`]);
    }
    const warnings: string[] = [];
    expect(
      parse(
        [
          ['response_format', 'srt'],
          ['stream', 'false'],
        ],
        warnings,
      ).stream,
    ).to.equal(false);
    expect(warnings).to.deep.equal([]);
  });

  it('knows the language by either name, and leaves several to the model', () => {
    expect(parse([['languages[]', 'de']]).speech.language).to.equal('de');
    expect(parse([['languages', 'de,en']]).speech.language).to.equal(undefined);
    expect(
      parse([
        ['languages', 'de,en'],
        ['language', 'fr'],
      ]).speech.language,
    ).to.equal('fr');
  });

  it('warns of fields that it does not know, or refuses them', () => {
    const warnings: string[] = [];
    parse(
      [
        ['top_k', '3'],
        ['language[]', 'en'],
      ],
      warnings,
    );
    expect(warnings).to.deep.equal(['top_k', 'language[]']);
    const error = failure(() => parse([['top_k', '3']], [], true));
    expect(error).to.include({ status: 400, code: 'unknown_parameter', param: 'top_k' });
  });

  it('takes the same value twice, not two', () => {
    expect(
      parse([
        ['model', 'a'],
        ['model', 'a'],
      ]).model,
    ).to.equal('a');
    expect(
      failure(() =>
        parse([
          ['model', 'a'],
          ['model', 'b'],
        ]),
      ).param,
    ).to.equal('model');
  });

  it('keeps names that are properties of every object apart', () => {
    const odd: FormEntries = [
      ['__proto__', 'x'],
      ['constructor', 'y'],
      ['chunking_strategy[type]', 'server_vad'],
      ['chunking_strategy[__proto__]', 'z'],
    ];
    const warnings: string[] = [];
    expect(parse(odd, warnings).speech.chunking).to.deep.equal({ type: 'batched' });
    expect(warnings).to.deep.equal(['__proto__', 'constructor']);
  });

  const wrong: readonly (readonly [string, string, string, string?])[] = [
    ['response_format', 'xml', 'response_format'],
    ['response_format', 'diarized_json', 'response_format', 'speakers'],
    ['temperature', 'warm', 'temperature', 'must be a number, got "warm"'],
    ['temperature', '1.5', 'temperature', 'at most 1'],
    ['temperature', '0x1', 'temperature'],
    ['temperature', 'Infinity', 'temperature'],
    ['beam_size', '0', 'beam_size'],
    ['beam_size', '2.5', 'beam_size', 'an integer'],
    ['beam_size', '1e9', 'beam_size'],
    ['stream', 'yes', 'stream', "'true' or 'false'"],
    ['vad_filter', '2', 'vad_filter'],
    ['language', 'x'.repeat(41), 'language'],
    ['timestamp_granularities[]', 'word', 'timestamp_granularities', "needs response_format 'verbose_json'"],
    ['timestamp_granularities[]', 'char', 'timestamp_granularities[0]'],
    ['include[]', 'words', 'include[0]'],
    ['chunking_strategy', 'vad', 'chunking_strategy', 'server_vad'],
    ['chunking_strategy', '{broken', 'chunking_strategy'],
    ['chunking_strategy', '[]', 'chunking_strategy'],
    ['chunking_strategy[type]', 'none', 'chunking_strategy.type'],
    ['chunking_strategy[threshold]', '0.5', 'chunking_strategy.type'],
    ['chunking_strategy', '{"type":"server_vad","threshold":2}', 'chunking_strategy.threshold'],
    ['chunking_strategy', '{"type":"server_vad","threshold":"much"}', 'chunking_strategy.threshold'],
    ['known_speaker_names[]', 'Ann', 'known_speaker_names', 'speakers'],
    ['known_speaker_references[]', 'data:audio/wav;base64,AA', 'known_speaker_references', 'speakers'],
    ['hallucination_silence_threshold', '-1', 'hallucination_silence_threshold'],
  ];
  for (const [name, value, param, words = ''] of wrong) {
    it(`refuses ${name}=${value.slice(0, 40)}`, () => {
      const error = failure(() => parse([[name, value]]));
      expect(error).to.include({ status: 400, type: 'invalid_request_error', param });
      expect(error.message).to.include(words);
    });
  }

  it('gives log-probabilities in json only', () => {
    expect(parse([['include[]', 'logprobs']]).speech.logprobs).to.equal(true);
    expect(
      failure(() =>
        parse([
          ['include', 'logprobs'],
          ['response_format', 'text'],
        ]),
      ).param,
    ).to.equal('include');
  });

  it('says what is wrong with the file', () => {
    const messages = (
      [null, 'text', { name: undefined, size: 3 }, { name: '', size: 0 }, { name: 'a', size: 0 }] as const
    )
      .map((file) => failure(() => parse([], [], false, file)))
      .map(({ param, message }) => [param, message]);
    expect(messages).to.deep.equal([
      ['file', "missing required parameter 'file'"],
      ['file', "'file' must be a file, got a string"],
      ['file', "'file' must be sent as a file with a name (curl: -F file=@NAME)"],
      ['file', "'file' has no file name: no file was chosen"],
      ['file', "'file' must not be empty"],
    ]);
  });
});

describe('protocol: translations', () => {
  it('translate, and may be told what is spoken', () => {
    const form = formObject(
      [
        ['language', 'de'],
        ['response_format', 'srt'],
        ['prompt', 'So.'],
      ],
      SPEECH_FORM,
    );
    expect(parseTranslationRequest({ ...form, file: FILE }, { strict: true, warn: () => undefined })).to.deep.equal({
      model: undefined,
      format: 'srt',
      stream: false,
      granularities: { segments: true, words: false },
      speech: { task: 'translate', prompt: 'So.', language: 'de' },
    });
  });

  it('have no diarized_json either', () => {
    const form = { ...formObject([['response_format', 'diarized_json']], SPEECH_FORM), file: FILE };
    expect(failure(() => parseTranslationRequest(form, { strict: false, warn: () => undefined })).param).to.equal(
      'response_format',
    );
  });
});
