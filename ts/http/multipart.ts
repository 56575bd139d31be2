/** A request's multipart form → its fields and its file. */

import type { IncomingMessage } from 'node:http';

import { Busboy, type BusboyFileStream, type BusboyInstance } from '@fastify/busboy';

import { ApiError, invalidValue } from '../protocol/errors.js';
import type { FormEntries } from '../protocol/form.js';
import { checkNotCompressed, tooLarge, unsupportedMediaType } from './body.js';
import type { RequestContext } from './context.js';
import { ClientGoneError } from './errors.js';
import type { HttpLimits } from './limits.js';
import { Upload } from './uploads.js';

/** Disposing of it deletes the file. */
export interface Form extends AsyncDisposable {
  readonly entries: FormEntries;
  /** Undefined if there was none. */
  readonly file: Upload | undefined;
}

/** Bytes around the parts and of headers of parts. */
const FRAME_BYTES = 256 * 1024;
/** Files of one form, most of which are not wanted. */
const MAX_FILES = 8;
/** Headers of one part, and their bytes. */
const MAX_PART_HEADERS = 32;
const MAX_PART_HEADER_BYTES = 16 * 1024;

/**
 * @param fileField name of the one file that is kept; other files are not wanted and are told to `warn`
 * @throws ApiError 400, 413 or 415; EngineError `disk_full`; ClientGoneError if the client left before all was here
 */
export async function readForm(
  context: RequestContext,
  fileField: string,
  warn: (field: string) => void,
): Promise<Form> {
  const { req, services } = context;
  const { limits } = services;
  checkNotCompressed(req);
  const maxBytes = limits.maxUploadBytes + limits.maxFormFields * limits.maxFieldBytes + FRAME_BYTES;
  if (Number(req.headers['content-length'] ?? 0) > maxBytes) throw uploadTooLarge(limits, fileField);
  const reader = new FormReader(req, createParser(req, limits, fileField), { limits, maxBytes, fileField, warn });
  try {
    await reader.read();
    return reader;
  } catch (error) {
    await reader[Symbol.asyncDispose]();
    throw error;
  }
}

function createParser(req: IncomingMessage, limits: HttpLimits, fileField: string): BusboyInstance {
  const type = req.headers['content-type'] ?? '';
  const mediaType = type.split(';')[0]?.trim().toLowerCase() ?? '';
  if (mediaType !== 'multipart/form-data') {
    throw unsupportedMediaType(
      `the content type must be multipart/form-data with the recording in its field '${fileField}', got ${JSON.stringify(mediaType)}`,
    );
  }
  try {
    return new Busboy({
      headers: { ...req.headers, 'content-type': type },
      isPartAFile: (name, _type, filename) => filename !== undefined || name === fileField,
      limits: {
        fileSize: limits.maxUploadBytes,
        fieldSize: limits.maxFieldBytes,
        fields: limits.maxFormFields,
        files: MAX_FILES,
        headerPairs: MAX_PART_HEADERS,
        headerSize: MAX_PART_HEADER_BYTES,
      },
    });
  } catch (error) {
    throw brokenForm(
      /boundary/i.test(String(error)) ? 'its content type has no boundary' : 'its content type is broken',
    );
  }
}

interface ReaderOptions {
  readonly limits: HttpLimits;
  /** Of the whole body. */
  readonly maxBytes: number;
  readonly fileField: string;
  readonly warn: (field: string) => void;
}

class FormReader implements Form {
  readonly entries: [string, string][] = [];
  file: Upload | undefined;
  #stream: BusboyFileStream | undefined;
  #saved: Promise<void> = Promise.resolve();

  constructor(
    private readonly req: IncomingMessage,
    private readonly parser: BusboyInstance,
    private readonly options: ReaderOptions,
  ) {}

  /** Resolves when all parts are here and the file is written. */
  read(): Promise<void> {
    const { req, parser } = this;
    const { limits, maxBytes, fileField } = this.options;
    return new Promise((resolve, reject) => {
      let size = 0;
      const stop = (): void => {
        req.off('data', count).off('close', onClose).unpipe(parser);
      };
      const fail = (error: unknown): void => {
        stop();
        // What is left of the body is discarded by whoever answers.
        req.resume();
        this.#stream?.destroy();
        reject(error instanceof Error ? error : new Error(String(error)));
      };
      const count = (chunk: Buffer): void => {
        size += chunk.length;
        if (size > maxBytes) fail(uploadTooLarge(limits, fileField));
      };
      const onClose = (): void => {
        if (!req.complete) fail(new ClientGoneError());
      };
      parser.on('file', (name, stream, filename) => this.#takeFile(name, stream, filename, fail));
      parser.on('field', (name, value, _nameCut, valueCut) => {
        if (valueCut) fail(invalidValue(shortName(name), `is longer than ${limits.maxFieldBytes} bytes`));
        else this.#takeField(name, value);
      });
      parser.on('fieldsLimit', () => fail(brokenForm(`it has more than ${limits.maxFormFields} fields`)));
      parser.on('filesLimit', () => fail(brokenForm(`it has more than ${MAX_FILES} files`)));
      parser.on('error', () => fail(brokenForm('it ends before its closing boundary, or is no multipart form at all')));
      parser.on('finish', () => {
        stop();
        this.#saved.then(resolve, reject);
      });
      req.on('data', count).on('close', onClose).pipe(parser);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stream?.destroy();
    await this.#saved.catch(() => undefined);
    await this.file?.[Symbol.asyncDispose]();
  }

  #takeField(name: string | undefined, value: string): void {
    if (name !== undefined && name !== '') this.entries.push([name, value]);
  }

  #takeFile(
    name: string | undefined,
    stream: BusboyFileStream,
    filename: string | undefined,
    fail: (error: unknown) => void,
  ): void {
    const { fileField, limits, warn } = this.options;
    // A form that ends in the middle says so here too; the parser's own error is the one that is told.
    stream.on('error', () => undefined);
    stream.once('limit', () => fail(uploadTooLarge(limits, shortName(name ?? fileField))));
    if (name !== fileField) {
      warn(name ?? '');
      stream.resume();
      return;
    }
    if (this.file !== undefined) {
      stream.resume();
      fail(invalidValue(fileField, 'is given twice: one recording is transcribed at a time'));
      return;
    }
    this.#stream = stream;
    this.file = new Upload(filename);
    this.#saved = this.file.save(stream);
    this.#saved.catch(fail);
  }
}

function uploadTooLarge(limits: HttpLimits, field: string): ApiError {
  return tooLarge(limits.maxUploadBytes, 'the recording', field);
}

function brokenForm(reason: string): ApiError {
  return new ApiError({
    status: 400,
    type: 'invalid_request_error',
    code: 'invalid_form',
    message: `the multipart form cannot be read: ${reason}`,
  });
}

/** A name that the client chose, short. */
function shortName(name: string | undefined): string {
  return (name ?? '').slice(0, 100);
}
