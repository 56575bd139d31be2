import { expect } from 'chai';

import { createLogger, type LogFormat, type LogLevel } from '../ts/http/logger.js';
import { content, finished, started } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';

function logger(level: LogLevel, format?: LogFormat) {
  const lines: string[] = [];
  return { lines, log: createLogger(level, (line) => lines.push(line), format) };
}

const MODELS = [{ id: 'org/one', chat: () => [started, content('secret answer'), finished()] }];
const ask = { model: 'org/one', messages: [{ role: 'user', content: 'secret question' }] };

describe('logs', () => {
  it('are lines for people', () => {
    const { lines, log } = logger('info');
    log.debug('not heard');
    log.info('a %s {line} 100%', { not: 'shown' });
    log.error('two\nlines');
    expect(lines).to.have.length(2);
    expect(lines[0]).to.match(/^\d{4}-\d\d-\d\dT[\d:.]+Z info {2}a %s \{line\} 100%$/);
    expect(lines[1]).to.match(/ error two\nlines$/);
  });

  it('are one JSON object per line for programs', () => {
    const { lines, log } = logger('debug', 'json');
    log.debug('two\nlines', { status: 200, model: undefined });
    log.warn('plain');
    const [first, second] = lines.map((line) => JSON.parse(line));
    expect(lines.join('')).not.to.contain('\n');
    expect(first).to.include({ level: 'debug', msg: 'two\nlines', status: 200 }).and.not.have.property('model');
    expect(new Date(first.time as string).getTime()).to.be.closeTo(Date.now(), 60_000);
    expect(second).to.include({ level: 'warn', msg: 'plain' });
  });

  it('can be silent', () => {
    const { lines, log } = logger('silent');
    log.error('x');
    expect(lines).to.deep.equal([]);
  });

  it('hold each request with its facts, and nothing of what is said in it', async () => {
    const { lines, log } = logger('debug', 'json');
    {
      await using app = await ScriptedApp.start(MODELS, { logger: log, apiKeys: ['secret key'] });
      const headers = { authorization: 'Bearer secret key', 'x-request-id': 'r1' };
      await app.post('/v1/chat/completions?secret=query', ask, headers);
    }
    expect(lines.join('\n')).not.to.contain('secret');
    expect(JSON.parse(lines.at(-1)!)).to.include({
      requestId: 'r1',
      method: 'POST',
      path: '/v1/chat/completions',
      status: 200,
      model: 'org/one',
      promptTokens: 5,
      cachedTokens: 2,
      completionTokens: 3,
    });
  });

  it('hold prompts if that is asked for', async () => {
    const { lines, log } = logger('info');
    {
      await using app = await ScriptedApp.start(MODELS, { logger: log, logPrompts: true });
      await app.post('/v1/chat/completions', ask, { 'x-request-id': 'r1' });
    }
    expect(lines[0]).to.match(/info {2}r1 prompt \[\{"role":"user","content":"secret question"/);
  });
});
