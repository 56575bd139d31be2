import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { CliFailure } from '../ts/cli/failure.js';
import { defaultFile, openResponses } from '../ts/cli/responses-file.js';
import { silentLogger } from '../ts/http/logger.js';
import { rejection } from './helpers/rejection.js';

describe('the store of responses that serve opens', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsserve-store-'));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it('is a file where the system keeps the data of programs', () => {
    expect(defaultFile('linux', {}, '/h')).to.equal(join('/h', '.local', 'share', 'tsserve', 'responses.db'));
    expect(defaultFile('linux', { XDG_DATA_HOME: '/x' }, '/h')).to.equal(join('/x', 'tsserve', 'responses.db'));
    const library = join('/h', 'Library', 'Application Support');
    expect(defaultFile('darwin', {}, '/h')).to.equal(join(library, 'tsserve', 'responses.db'));
    expect(defaultFile('win32', { LOCALAPPDATA: '/l' }, '/h')).to.equal(join('/l', 'tsserve', 'responses.db'));
  });

  it('is one server’s until that ends', async () => {
    const path = join(folder, 'deep', 'responses.db');
    const first = await openResponses(path, silentLogger);
    const refused = await rejection(openResponses(path, silentLogger), CliFailure);
    expect(refused.message).to.equal(`responses cannot be kept in ${path}: another server uses the file`);
    first.close();
    (await openResponses(path, silentLogger)).close();
  });

  it('may be nowhere, or in memory', async () => {
    expect((await openResponses('off', silentLogger)).store).to.equal(false);
    const memory = await openResponses('memory', silentLogger);
    expect(memory.store).not.to.equal(false);
    memory.close();
  });
});
