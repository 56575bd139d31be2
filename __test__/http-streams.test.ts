import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';

import { expect } from 'chai';

import type { ChatEvent } from '../ts/chat/types.js';
import { content, delta, finished, started } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { Gate, type Step } from './helpers/scripted-registry.js';

const CHAT = '/v1/chat/completions';

function ask(fields: object): object {
  return { model: 'm', messages: [{ role: 'user', content: 'hi' }], ...fields };
}

/** Sends a request over a bare connection, which a test can close or leave unread. */
function send(app: ScriptedApp, path: string, body: object): Socket {
  const socket = connect(app.port, '127.0.0.1');
  // A connection that the test itself breaks may complain.
  socket.on('error', () => undefined);
  const text = JSON.stringify(body);
  socket.write(`POST ${path} HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\n`);
  socket.write(`content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  return socket;
}

describe('a client that goes away', () => {
  const never = new Gate();
  const hangs = { id: 'm', chat: () => [started, content('a'), { wait: never.opened }] };

  for (const stream of [true, false]) {
    const kind = stream ? 'streaming' : 'waiting for the whole answer';

    it(`stops its generation while ${kind}`, async () => {
      await using app = await ScriptedApp.start([hangs]);
      const model = app.registry.first;
      const socket = send(app, CHAT, ask({ stream }));
      await app.registry.until(() => model.played === 2);
      socket.destroy();
      await app.registry.until(() => model.running === 0 && model.held === 0);
      expect(model.cancelled).to.equal(1);
      await settled(() => app.log.length > 0);
      expect(app.log[0]).to.match(/^info POST \/v1\/chat\/completions 499 /);
      expect(app.log).to.have.length(1);
    });

    it(`stops its generation while ${kind}, closing only its side`, async () => {
      await using app = await ScriptedApp.start([hangs]);
      const model = app.registry.first;
      const socket = send(app, CHAT, ask({ stream }));
      await app.registry.until(() => model.played === 2);
      socket.end();
      await app.registry.until(() => model.running === 0 && model.held === 0);
      expect(model.cancelled).to.equal(1);
    });

    it(`stops its generation before the first event while ${kind}`, async () => {
      await using app = await ScriptedApp.start([{ id: 'm', chat: () => [{ wait: never.opened }] }]);
      const model = app.registry.first;
      const socket = send(app, CHAT, ask({ stream }));
      await app.registry.until(() => model.running === 1);
      socket.destroy();
      await app.registry.until(() => model.running === 0 && model.held === 0);
    });

    it(`stops waiting for a model that loads while ${kind}`, async () => {
      await using app = await ScriptedApp.start([{ id: 'm', load: never.opened }]);
      const socket = send(app, CHAT, ask({ stream }));
      await app.registry.until(() => app.registry.asked.length === 1);
      socket.destroy();
      await app.registry.until(() => app.registry.loadsAbandoned === 1);
    });
  }

  it('stops all its prompts', async () => {
    await using app = await ScriptedApp.start([
      { id: 'm', generate: () => [started, delta('a'), { wait: never.opened }] },
    ]);
    const model = app.registry.first;
    const socket = send(app, '/v1/completions', { model: 'm', prompt: ['a', 'b', 'c'], stream: true });
    await app.registry.until(() => model.played === 6);
    socket.destroy();
    await app.registry.until(() => model.running === 0 && model.held === 0);
    expect(model.cancelled).to.equal(3);
  });

  it('while it still sends is no error of ours', async () => {
    await using app = await ScriptedApp.start([hangs]);
    const socket = connect(app.port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write(
      `POST ${CHAT} HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{`,
    );
    await once(app.server, 'request');
    socket.destroy();
    await settled(() => app.log.length > 0);
    expect(app.log).to.have.length(1);
    expect(app.log[0]).to.match(/ 499 /);
  });

  it('leaves others alone', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start([
      { id: 'm', chat: () => [started, content('a'), { wait: gate.opened }, finished()] },
    ]);
    const model = app.registry.first;
    const leaves = send(app, CHAT, ask({ stream: true }));
    const stays = app.post(CHAT, ask({}));
    await app.registry.until(() => model.played === 4);
    leaves.destroy();
    await app.registry.until(() => model.running === 1);
    gate.open();
    expect((await stays).json.choices[0].message.content).to.equal('a');
  });
});

describe('a client that reads slowly', () => {
  it('holds its generation up, and gets everything', async () => {
    const pieces = 2000;
    const piece = 'x'.repeat(32_768);
    await using app = await ScriptedApp.start([
      {
        id: 'm',
        *chat(): Generator<Step<ChatEvent>> {
          yield started;
          for (let i = 0; i < pieces; i++) yield content(piece);
          yield finished();
        },
      },
    ]);
    const model = app.registry.first;
    const socket = send(app, CHAT, ask({ stream: true }));
    socket.pause();
    await app.registry.until(() => model.played > 1);
    await stalled(() => model.played);
    // What the buffers between hold is a few megabytes; the whole answer is 64 MiB.
    expect(model.played).to.be.within(2, pieces / 2);
    expect(model.running).to.equal(1);
    let received = 0;
    let tail = '';
    socket.on('data', (chunk) => {
      received += chunk.length;
      tail = (tail + chunk.toString('latin1')).slice(-100);
      if (tail.includes('[DONE]')) socket.end();
    });
    socket.resume();
    await once(socket, 'close');
    expect(received).to.be.above(pieces * piece.length);
    expect(model).to.include({ played: pieces + 2, cancelled: 0 });
  });

  it('may leave while it is waited for', async () => {
    const piece = 'x'.repeat(32_768);
    await using app = await ScriptedApp.start([
      {
        id: 'm',
        *chat(): Generator<Step<ChatEvent>> {
          yield started;
          for (;;) yield content(piece);
        },
      },
    ]);
    const model = app.registry.first;
    const socket = send(app, CHAT, ask({ stream: true }));
    socket.pause();
    await app.registry.until(() => model.played > 1);
    await stalled(() => model.played);
    socket.destroy();
    await app.registry.until(() => model.running === 0 && model.held === 0);
  });
});

describe('a silent stream', () => {
  const limits = { keepAliveMs: 5 };

  it('gets comments while the model loads and while the prompt is computed, and none when it is done', async () => {
    const loaded = new Gate();
    const computed = new Gate();
    await using app = await ScriptedApp.start(
      [{ id: 'm', load: loaded.opened, chat: () => [{ wait: computed.opened }, started, content('a'), finished()] }],
      { limits },
    );
    const socket = send(app, CHAT, ask({ stream: true }));
    let text = '';
    const comments = (): number => text.split(': keep-alive\n\n').length - 1;
    await reading(socket, (chunk) => {
      text += chunk;
      if (comments() === 2) loaded.open();
      if (comments() === 4) computed.open();
      return text.endsWith('0\r\n\r\n');
    });
    socket.destroy();
    expect(text)
      .to.match(/^HTTP\/1\.1 200 OK\r\n/)
      .and.include('text/event-stream');
    expect(comments()).to.be.at.least(4);
    expect(text.indexOf('data: ')).to.be.above(text.lastIndexOf(': keep-alive'));
    // Each comment is a chunk of its own.
    expect(text).to.include('\r\n\r\ne\r\n: keep-alive\n\n\r\ne\r\n: keep-alive\n\n\r\n');
  });

  it('ends with an error event if the load fails after a comment', async () => {
    const failing = new Gate();
    const load = failing.opened.then(() => Promise.reject(new Error('the disk is gone')));
    await using app = await ScriptedApp.start([{ id: 'm', load }], { limits });
    const socket = send(app, CHAT, ask({ stream: true }));
    let text = '';
    await reading(socket, (chunk) => {
      text += chunk;
      if (text.includes(': keep-alive')) failing.open();
      return text.endsWith('0\r\n\r\n');
    });
    socket.destroy();
    expect(text).to.match(/data: \{"error":\{[^\n]*"code":"internal_error"\}\}\n\n/);
    expect(text).not.to.include('[DONE]');
    expect(text).not.to.include('the disk is gone');
  });

  it('is no matter for a whole answer', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start([{ id: 'm', chat: () => [started, { wait: gate.opened }, finished()] }], {
      limits: { keepAliveMs: 1 },
    });
    const answer = app.post(CHAT, ask({}));
    await app.registry.until(() => app.registry.first.played === 1);
    for (let i = 0; i < 50; i++) await turn();
    gate.open();
    expect((await answer).text).to.match(/^\{"id":/);
  });
});

/** Resolves when the condition holds, at the end of some turn of the event loop; mocha's time limit ends a vain wait. */
async function settled(holds: () => boolean): Promise<void> {
  while (!holds()) await turn();
}

/** Resolves when the value has not moved for many turns of the event loop. */
async function stalled(value: () => number): Promise<void> {
  let last = -1;
  for (let still = 0; still < 500; still++) {
    await turn();
    if (value() !== last) still = 0;
    last = value();
  }
}

/** Reads until `enough` of a piece is true. */
function reading(socket: Socket, enough: (chunk: string) => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.on('close', () => reject(new Error('the connection closed early')));
    socket.on('data', (chunk) => {
      if (enough(chunk.toString('latin1'))) resolve();
    });
  });
}
