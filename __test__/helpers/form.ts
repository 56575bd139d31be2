/** Multipart forms, written byte by byte: also those that no client would write. */

export interface FormPart {
  readonly name?: string;
  readonly value: string | Uint8Array;
  readonly filename?: string;
  readonly type?: string;
}

export interface FormBody {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export const BOUNDARY = '----form-boundary';

/** What the scripted engine takes for a recording. */
export const RECORDING = { name: 'file', value: 'RIFF, a recording', filename: 'talk.wav', type: 'audio/wav' } as const;

export function formBody(parts: readonly FormPart[]): FormBody {
  const pieces = parts.flatMap(({ name, value, filename, type }) => {
    const disposition = [
      'form-data',
      ...(name === undefined ? [] : [`name="${name}"`]),
      ...(filename === undefined ? [] : [`filename="${filename}"`]),
    ].join('; ');
    const head = [
      `--${BOUNDARY}`,
      `Content-Disposition: ${disposition}`,
      ...(type === undefined ? [] : [`Content-Type: ${type}`]),
    ];
    return [Buffer.from(`${head.join('\r\n')}\r\n\r\n`), Buffer.from(value as Uint8Array), Buffer.from('\r\n')];
  });
  return {
    headers: { 'content-type': `multipart/form-data; boundary=${BOUNDARY}` },
    body: Buffer.concat([...pieces, Buffer.from(`--${BOUNDARY}--\r\n`)]),
  };
}

/** Fields by name; a list stands for a field that comes several times. */
export function fieldParts(fields: Readonly<Record<string, string | readonly string[]>>): FormPart[] {
  return Object.entries(fields).flatMap(([name, value]) =>
    (typeof value === 'string' ? [value] : value).map((one) => ({ name, value: one })),
  );
}
