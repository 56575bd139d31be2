import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';

import { expect } from 'chai';

import { ChatClient, serviceRoot } from '../ts/cli/chat-client.js';
import { fileHistory, historyFile } from '../ts/cli/chat-history.js';
import { ChatSession } from '../ts/cli/chat-session.js';
import { CliFailure } from '../ts/cli/failure.js';
import { runCli } from './helpers/cli.js';
import {
  scriptedServer,
  sendAnswer,
  sendEvent,
  sendJson,
  startEvents,
  type Script,
} from './helpers/scripted-server.js';

const twoModels: Script = (_request, response) =>
  sendJson(response, 200, { data: [{ id: 'first' }, { id: 'second' }] });

/** Lists one model and answers every chat in two pieces that name the question. */
const echo: Script = (request, response) => {
  if (request.path === '/v1/models') return twoModels(request, response);
  const messages = request.body.messages as { content: string }[];
  return sendAnswer(response, [`re: `, messages.at(-1)!.content]);
};

class Terminal {
  readonly input: PassThrough & { isTTY?: boolean } = new PassThrough();
  readonly output: PassThrough & { isTTY?: boolean } = new PassThrough({ encoding: 'utf8' });
  readonly notes: PassThrough & { isTTY?: boolean } = new PassThrough({ encoding: 'utf8' });
  shown = '';
  noted = '';

  constructor(isTTY: boolean) {
    this.input.isTTY = isTTY;
    this.output.isTTY = isTTY;
    this.output.on('data', (text) => (this.shown += String(text)));
    this.notes.on('data', (text) => (this.noted += String(text)));
  }

  /** Waits until `text` has been shown. */
  async sees(text: string): Promise<void> {
    while (!this.shown.includes(text) && !this.noted.includes(text)) {
      await Promise.race([once(this.output, 'data'), once(this.notes, 'data')]);
    }
  }
}

function session(url: string, terminal: Terminal, system?: string): Promise<number> {
  const client = new ChatClient({ baseUrl: url, apiKey: undefined });
  return new ChatSession(client, { model: 'first', fields: { temperature: 0.5, seed: 7 } }, system, terminal).run();
}

describe('tsserve chat', () => {
  it('understands addresses with and without scheme, /v1 and slashes', () => {
    expect(serviceRoot('localhost:8000')).to.equal('http://localhost:8000');
    expect(serviceRoot('http://localhost:8000/v1/')).to.equal('http://localhost:8000');
    expect(serviceRoot('https://host/a/v1')).to.equal('https://host/a');
    expect(() => serviceRoot('ftp://host')).to.throw('not an http or https URL');
    expect(() => serviceRoot('http://')).to.throw('is not a URL');
  });

  it('answers piped lines, each with the conversation so far, and prints the answers alone to stdout', async () => {
    await using server = await scriptedServer(echo);
    const { code, stdout, stderr } = await runCli(
      ['chat', server.url, '--temperature', '0.5', '--max-tokens', '9'],
      'one\ntwo\n',
    );
    expect(stdout).to.equal('re: one\nre: two\n');
    expect(stderr)
      .to.match(/^first: !help/)
      .and.match(/4 tokens · .*first after \d+\.\d\d s/);
    expect(code).to.equal(0);
    const chats = server.requests.filter(({ path }) => path === '/v1/chat/completions').map(({ body }) => body);
    expect(chats[0]).to.deep.equal({
      model: 'first',
      messages: [{ role: 'user', content: 'one' }],
      stream: true,
      stream_options: { include_usage: true },
      temperature: 0.5,
      max_tokens: 9,
    });
    expect(chats[1].messages).to.deep.equal([
      { role: 'user', content: 'one' },
      { role: 'assistant', content: 're: one' },
      { role: 'user', content: 'two' },
    ]);
  });

  it('takes the model and the key that are named, under either flag', async () => {
    await using server = await scriptedServer(echo);
    const args = ['chat', `${server.url}/v1`, '--model-name-or-path', 'mine', '--api-key', 'k'];
    expect((await runCli(args, 'x')).code).to.equal(0);
    expect(server.requests.map(({ path }) => path)).to.deep.equal(['/v1/chat/completions']);
    expect(server.requests[0]!.body.model).to.equal('mine');
    expect(server.requests[0]!.headers.authorization).to.equal('Bearer k');
  });

  it('says in one sentence what is wrong', async () => {
    const gone = await scriptedServer(twoModels);
    await gone[Symbol.asyncDispose]();
    const refused = await runCli(['chat', gone.url], '');
    expect(refused).to.include({
      code: 1,
      stderr: `tsserve: no server answers at ${gone.url}: start one with 'tsserve serve'\n`,
    });

    await using empty = await scriptedServer((_request, response) => sendJson(response, 200, { data: [] }));
    expect((await runCli(['chat', empty.url], '')).stderr).to.match(/^tsserve: the server has no models: .*\n$/);

    await using locked = await scriptedServer((_request, response) =>
      sendJson(response, 401, { error: { message: 'no key was given' } }),
    );
    expect((await runCli(['chat', locked.url], '')).stderr).to.equal(
      'tsserve: the server wants a key: no key was given (--api-key or TSSERVE_API_KEY)\n',
    );
  });

  it('reports an answer that fails and goes on; piped, the exit code tells', async () => {
    let asked = 0;
    await using server = await scriptedServer((_request, response) => {
      asked += 1;
      if (asked === 1) return sendJson(response, 400, { error: { message: 'too long' } });
      if (asked === 2) {
        startEvents(response);
        sendEvent(response, { choices: [{ delta: { content: 'half' } }] });
        sendEvent(response, { error: { message: 'the engine broke' } });
        return void response.end();
      }
      return sendAnswer(response, ['fine']);
    });
    const terminal = new Terminal(false);
    terminal.input.end('a\nb\nc\n');
    expect(await session(server.url, terminal)).to.equal(1);
    expect(terminal.noted).to.include('too long\n').and.include('the server failed: the engine broke\n');
    expect(terminal.shown).to.equal('half\nfine\n');
    expect(server.requests[2]!.body.messages).to.deep.equal([{ role: 'user', content: 'c' }]);
  });

  it('obeys its commands', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tsserve-chat-'));
    try {
      await using server = await scriptedServer(echo);
      const file = join(folder, 'talk.json');
      const terminal = new Terminal(false);
      terminal.input.end(`/system be brief\none \\\nmore\n/save ${file}\n/clear\ntwo\n/what\n/help\n/exit\nnever\n`);
      expect(await session(server.url, terminal, 'at first')).to.equal(1);
      expect(JSON.parse(await readFile(file, 'utf8'))).to.deep.equal({
        model: 'first',
        settings: { temperature: 0.5, seed: 7 },
        messages: [
          { role: 'system', content: 'be brief' },
          { role: 'user', content: 'one \nmore' },
          { role: 'assistant', content: 're: one \nmore' },
        ],
      });
      expect(server.requests).to.have.length(2);
      expect(server.requests[1]!.body.messages).to.deep.equal([
        { role: 'system', content: 'be brief' },
        { role: 'user', content: 'two' },
      ]);
      expect(terminal.noted).to.include('there is no command /what: !help lists them').and.include('!save [FILE]');
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('takes settings at the prompt, all or none, and says what they are', async () => {
    await using server = await scriptedServer(echo);
    const terminal = new Terminal(false);
    terminal.input.end(
      [
        '!set temperature=1e-5 top_k=+40 stop=["a","b c"] ignore_eos=True system="be brief"',
        'one',
        '!status',
        '!set temperature=none top_p=0.5 nonsense',
        '!set max_new_tokens=9 do_sample=False model=second stop=none ignore_eos=false seed=None',
        '!system',
        'two',
        '!set messages=[]',
        '!set',
        '',
      ].join('\n'),
    );
    expect(await session(server.url, terminal)).to.equal(1);
    expect(server.requests[0]!.body).to.deep.include({
      temperature: 1e-5,
      top_k: 40,
      stop: ['a', 'b c'],
      ignore_eos: true,
      seed: 7,
    });
    expect(server.requests[0]!.body.messages[0]).to.deep.equal({ role: 'system', content: 'be brief' });
    const { model, max_tokens, temperature, ignore_eos, stop, seed, top_p, messages } = server.requests[1]!.body;
    expect({ model, max_tokens, temperature, ignore_eos, stop, seed, top_p }).to.deep.equal({
      model: 'second',
      max_tokens: 9,
      temperature: 0,
      ignore_eos: false,
      stop: undefined,
      seed: undefined,
      top_p: undefined,
    });
    expect(messages[0].role).to.equal('user');
    expect(terminal.noted)
      .to.include(`model     first at ${server.url}\n`)
      .and.include('settings  temperature=0.00001 seed=7 top_k=40 stop=["a","b c"] ignore_eos=true\n')
      .and.include('system    be brief\nmessages  2\n')
      .and.include("'nonsense' is not name=value")
      .and.include('messages cannot be set here')
      .and.include('what is to be set?');
  });

  it('asks examples in a new conversation', async () => {
    await using server = await scriptedServer(echo);
    const terminal = new Terminal(false);
    terminal.input.end('one\n!example socks\n!example none\n!example\n/example toString\n');
    await session(server.url, terminal);
    expect(server.requests).to.have.length(2);
    expect(server.requests[1]!.body.messages).to.have.length(1);
    expect(server.requests[1]!.body.messages[0].content).to.include('sock');
    expect(terminal.noted).to.include('there is no example none: try llama').and.include('examples: llama, code');
  });

  it('takes several lines as one, commands in them as text, and text with ! as text', async () => {
    await using server = await scriptedServer(echo);
    const terminal = new Terminal(false);
    terminal.input.end('"""one\n!clear\n  two"""\n!?\n"""three"""\n! four\n');
    await session(server.url, terminal);
    expect(server.requests.map(({ body }) => body.messages.at(-1).content)).to.deep.equal([
      'one\n!clear\n  two',
      '!?',
      'three',
      '! four',
    ]);
  });

  it('shows reasoning dimmed at a terminal, and not at all in a pipe', async () => {
    const think: Script = (_request, response) => {
      startEvents(response);
      sendEvent(response, { choices: [{ delta: { reasoning_content: 'hm' } }] });
      sendEvent(response, { choices: [{ delta: { content: 'yes' }, finish_reason: 'stop' }] });
      sendEvent(response, '[DONE]');
      return void response.end();
    };
    await using server = await scriptedServer(think);
    const piped = new Terminal(false);
    piped.input.end('x\n');
    await session(server.url, piped);
    expect(piped.shown).to.equal('yes\n');
    const terminal = new Terminal(true);
    const ended = session(server.url, terminal);
    terminal.input.write('x\r');
    await terminal.sees('yes');
    expect(terminal.shown).to.match(/hm[^a-z]*\n\nyes/);
    await terminal.sees('tokens');
    terminal.input.write('\u0004');
    await ended;
  });

  it('remembers what was typed, in a file of its owner', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tsserve-history-'));
    try {
      await using server = await scriptedServer(echo);
      const file = historyFile({ XDG_STATE_HOME: folder });
      const history = fileHistory(file);
      const first = Object.assign(new Terminal(true), { history });
      const ended = session(server.url, first);
      for (const line of ['one', 'two']) {
        first.input.write(`${line}\r`);
        await first.sees(`re: ${line}`);
      }
      while (first.noted.split('tokens').length < 3) await once(first.notes, 'data');
      first.input.write('\u0004');
      await ended;
      expect(history.load()).to.deep.equal(['two', 'one']);
      if (process.platform !== 'win32') expect((await stat(file)).mode & 0o777).to.equal(0o600);
      const second = Object.assign(new Terminal(true), { history });
      const again = session(server.url, second);
      await second.sees('> ');
      second.input.write('\u001b[A\u001b[A\r');
      await second.sees('re: one');
      second.input.write('\u0004');
      await again;
      expect(server.requests.at(-1)!.body.messages.at(-1).content).to.equal('one');
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('has the model loaded first, where the server can', async () => {
    await using server = await scriptedServer((request, response) => {
      if (request.body.model === 'unknown') return sendJson(response, 404, {});
      startEvents(response);
      const failed = request.body.model === 'broken';
      if (!failed)
        sendEvent(response, { status: 'loading', model: 'm', stage: 'weights', progress: { current: 1, total: 2 } });
      sendEvent(
        response,
        failed
          ? { status: 'error', model: 'm', message: 'it is broken' }
          : { status: 'ready', model: 'm', cached: false },
      );
      return void response.end();
    });
    const client = new ChatClient({ baseUrl: server.url, apiKey: undefined });
    const seen: string[] = [];
    await client.load('m', ({ status }) => seen.push(status));
    expect(seen).to.deep.equal(['loading', 'ready']);
    await client.load('unknown', () => expect.fail());
    let failure: unknown;
    await client.load('broken', () => undefined).catch((error: unknown) => (failure = error));
    expect(failure).to.be.instanceOf(CliFailure).and.have.property('message', 'it is broken');
  });

  it('keeps control characters of an answer from the terminal', async () => {
    await using server = await scriptedServer((_request, response) => sendAnswer(response, ['a\u001b[2Jb\u0007\n\tc']));
    const terminal = new Terminal(false);
    terminal.input.end('x\n');
    await session(server.url, terminal);
    expect(terminal.shown).to.equal('a[2Jb\n\tc\n');
  });

  it('stops an answer on Ctrl-C, closes its request, and leaves on the second Ctrl-C at the prompt', async () => {
    let closed: Promise<unknown> | undefined;
    await using server = await scriptedServer((request, response) => {
      if (request.body.messages.length > 1) return sendAnswer(response, ['again']);
      closed = once(response, 'close');
      startEvents(response);
      return sendEvent(response, { choices: [{ delta: { content: 'endless' } }] });
    });
    const terminal = new Terminal(true);
    const ended = session(server.url, terminal);
    terminal.input.write('go\r');
    await terminal.sees('endless');
    terminal.input.write('\u0003');
    await terminal.sees('stopped');
    await closed;
    terminal.input.write('on\r');
    await terminal.sees('again');
    await terminal.sees('2 tokens');
    expect(server.requests[1]!.body.messages).to.deep.equal([
      { role: 'user', content: 'go' },
      { role: 'assistant', content: 'endless' },
      { role: 'user', content: 'on' },
    ]);
    terminal.input.write('\u0003');
    await terminal.sees('press Ctrl-C again');
    terminal.input.write('\u0003');
    expect(await ended).to.equal(0);
  });

  it('drops several lines that are unfinished on Ctrl-C, and does not leave', async () => {
    await using server = await scriptedServer(echo);
    const terminal = new Terminal(true);
    const ended = session(server.url, terminal);
    terminal.input.write('"""dropped\r');
    await terminal.sees('… ');
    terminal.input.write('\u0003');
    terminal.input.write('kept\r');
    await terminal.sees('re: kept');
    await terminal.sees('tokens');
    expect(server.requests.map(({ body }) => body.messages)).to.deep.equal([[{ role: 'user', content: 'kept' }]]);
    expect(terminal.noted).not.to.include('press Ctrl-C again');
    terminal.input.write('\u0004');
    expect(await ended).to.equal(0);
  });

  it('leaves on Ctrl-D', async () => {
    await using server = await scriptedServer(echo);
    const terminal = new Terminal(true);
    const ended = session(server.url, terminal);
    terminal.input.write('\u0004');
    expect(await ended).to.equal(0);
  });
});
