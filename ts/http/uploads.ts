/** Where an uploaded file stays while its request runs: in memory if it is small, else in a folder of its own. */

import { createHash } from 'node:crypto';
import { lstat, mkdtemp, open, readdir, rm, type FileHandle } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { extname, join } from 'node:path';

import type { AudioInput } from '../engine/speech.js';
import { EngineError } from '../engine/types.js';

/** Bytes up to which a file never touches the disk. */
const IN_MEMORY_BYTES = 1024 * 1024;

/** One uploaded file. Disposing of it deletes it, also in the middle of `save`, which must then have been stopped. */
export class Upload implements AsyncDisposable {
  #chunks: Buffer[] = [];
  #size = 0;
  #folder: string | undefined;
  #path: string | undefined;
  #handle: FileHandle | undefined;

  /** @param name as the client calls it; undefined if it has none */
  constructor(
    readonly name: string | undefined,
    private readonly base = tmpdir(),
  ) {}

  /** Bytes so far. */
  get size(): number {
    return this.#size;
  }

  /** What the engine reads, once it is saved. */
  get audio(): AudioInput {
    if (this.#path !== undefined) return { path: this.#path };
    const bytes = Buffer.concat(this.#chunks);
    return this.name === undefined ? { bytes } : { bytes, name: this.name };
  }

  /** Takes the whole content. Throws what the stream throws, or EngineError `disk_full`. */
  async save(content: AsyncIterable<Buffer>): Promise<void> {
    try {
      for await (const chunk of content) {
        this.#size += chunk.length;
        if (this.#size <= IN_MEMORY_BYTES) {
          this.#chunks.push(chunk);
        } else {
          this.#handle ??= await this.#spill();
          await this.#handle.writeFile(chunk);
        }
      }
    } catch (error) {
      throw diskError(error, this.base) ?? error;
    } finally {
      await this.#handle?.close();
      this.#handle = undefined;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#chunks = [];
    if (this.#folder === undefined) return;
    // On Windows a file that is still read can be deleted only a little later. What stays after all is swept at a later
    // start: an answer that is out must not fail of it.
    const patience = { maxRetries: 10, retryDelay: 100 };
    await rm(this.#folder, { recursive: true, force: true, ...patience }).catch(() => undefined);
  }

  async #spill(): Promise<FileHandle> {
    await sweepUploads(this.base);
    // For its owner alone, whatever the umask says.
    this.#folder = await mkdtemp(join(this.base, `${PREFIX}${process.pid}-`));
    this.#path = join(this.#folder, `recording${safeExtension(this.name)}`);
    const handle = await open(this.#path, 'wx', 0o600);
    for (const chunk of this.#chunks) await handle.writeFile(chunk);
    this.#chunks = [];
    return handle;
  }
}

/** Names the machine, since folders may be shared by containers that have the same process ids. */
const PREFIX = `tsserve-upload-${createHash('sha256').update(hostname()).digest('hex').slice(0, 8)}-`;

const swept = new Set<string>();

/** Deletes, once per process, what processes of this user left behind that were killed in the middle of an upload. */
export async function sweepUploads(base = tmpdir()): Promise<void> {
  if (swept.has(base)) return;
  swept.add(base);
  const names = await readdir(base).catch(() => []);
  for (const name of names) {
    const pid = name.startsWith(PREFIX) ? Number(/^(\d+)-/.exec(name.slice(PREFIX.length))?.[1]) : NaN;
    if (!Number.isSafeInteger(pid) || isAlive(pid)) continue;
    const path = join(base, name);
    const stat = await lstat(path).catch(() => undefined);
    const isOurs = stat?.isDirectory() === true && (process.getuid === undefined || stat.uid === process.getuid());
    if (isOurs) await rm(path, { recursive: true, force: true }).catch(() => undefined);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Somebody else's is alive too.
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

/** `.mp3`: helps to recognise the format. Anything odd is left out: it is part of a path. */
function safeExtension(name = ''): string {
  const extension = extname(name).toLowerCase();
  return /^\.[a-z0-9]{1,8}$/.test(extension) ? extension : '';
}

function diskError(error: unknown, base: string): EngineError | undefined {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOSPC' || code === 'EDQUOT'
    ? new EngineError('disk_full', `the upload does not fit into ${base}`, undefined, { cause: error })
    : undefined;
}
