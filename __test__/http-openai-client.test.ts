/** The official client as an oracle. */

import { expect } from 'chai';
import OpenAI from 'openai';

import { EngineError } from '../ts/engine/types.js';
import { content, delta, finished, reasoning, started, token, USAGE } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { Gate, type ScriptedModelOptions } from './helpers/scripted-registry.js';

const MESSAGES = [{ role: 'user' as const, content: 'hi' }];
const ID = 'org/model';

function clientOf(app: ScriptedApp, options: object = {}): OpenAI {
  return new OpenAI({ baseURL: `${app.url}/v1`, apiKey: 'k', maxRetries: 0, ...options });
}

async function failureOf(promise: PromiseLike<unknown>): Promise<any> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('it succeeded');
}

describe('the openai client', () => {
  const speaks: ScriptedModelOptions = {
    id: ID,
    contextLength: 2048,
    chat: () => [started, content('Hel', [token('Hel', -1)]), content('lo', [token('lo', -2)]), finished()],
    generate: ({ prompt }) => [started, delta('text' in prompt ? `${prompt.text}!` : '?'), finished('length')],
  };

  it('chats', async () => {
    await using app = await ScriptedApp.start([speaks], { apiKeys: ['k'] });
    const completion = await clientOf(app).chat.completions.create({ model: ID, messages: MESSAGES });
    expect(completion.choices[0]!.message.content).to.equal('Hello');
    expect(completion.choices[0]!.finish_reason).to.equal('stop');
    expect(completion.usage!.total_tokens).to.equal(USAGE.promptTokens + USAGE.completionTokens);
    expect(completion._request_id).to.match(/^[0-9a-f-]{36}$/);
  });

  it('streams', async () => {
    await using app = await ScriptedApp.start([speaks]);
    const stream = await clientOf(app).chat.completions.create({
      model: ID,
      messages: MESSAGES,
      stream: true,
      stream_options: { include_usage: true },
    });
    const seen: (string | null | undefined)[] = [];
    let usage;
    for await (const chunk of stream) {
      seen.push(...chunk.choices.map((choice) => choice.delta.content ?? choice.finish_reason));
      usage = chunk.usage ?? usage;
    }
    expect(seen).to.deep.equal(['', 'Hel', 'lo', 'stop']);
    expect(usage).to.include({ prompt_tokens: 5, completion_tokens: 3 });
    expect(usage?.prompt_tokens_details?.cached_tokens).to.equal(2);
  });

  it('gathers a stream into the answer that is given without streaming', async () => {
    await using app = await ScriptedApp.start([speaks]);
    const client = clientOf(app);
    const request = { model: ID, messages: MESSAGES, logprobs: true };
    const streaming = { ...request, stream: true as const, stream_options: { include_usage: true } };
    const gathered = await client.chat.completions.stream(streaming).finalChatCompletion();
    const whole = await client.chat.completions.create(request);
    expect(gathered.choices[0]!.logprobs).to.deep.equal(whole.choices[0]!.logprobs);
    const { message, finish_reason } = gathered.choices[0]!;
    expect([message.role, message.content, finish_reason]).to.deep.equal(['assistant', 'Hello', 'stop']);
    expect(gathered.usage).to.deep.equal(whole.usage);
  });

  it('sees the events of its stream helper in order', async () => {
    await using app = await ScriptedApp.start([
      { id: ID, chat: () => [started, reasoning('hm'), content('Hi'), content('!'), finished()] },
    ]);
    const stream = clientOf(app).chat.completions.stream({ model: ID, messages: MESSAGES });
    const seen: string[] = [];
    stream.on('content', (text) => seen.push(text));
    stream.on('end', () => seen.push('end'));
    expect(await stream.finalContent()).to.equal('Hi!');
    await stream.done();
    expect(seen).to.deep.equal(['Hi', '!', 'end']);
  });

  it('aborts', async () => {
    const never = new Gate();
    await using app = await ScriptedApp.start([
      { id: ID, chat: () => [started, content('a'), { wait: never.opened }] },
    ]);
    const model = app.registry.first;
    const stream = await clientOf(app).chat.completions.create({ model: ID, messages: MESSAGES, stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content === 'a') stream.controller.abort();
    }
    await app.registry.until(() => model.running === 0 && model.held === 0);

    const controller = new AbortController();
    const waiting = failureOf(
      clientOf(app).chat.completions.create({ model: ID, messages: MESSAGES }, { signal: controller.signal }),
    );
    await app.registry.until(() => model.running === 1 && model.played === 4);
    controller.abort();
    expect(await waiting).to.be.instanceOf(OpenAI.APIUserAbortError);
    await app.registry.until(() => model.running === 0 && model.held === 0);
    expect(model.cancelled).to.equal(2);
  });

  it('lists and retrieves models', async () => {
    await using app = await ScriptedApp.start([speaks, { id: 'other' }]);
    const client = clientOf(app);
    const ids: string[] = [];
    for await (const model of client.models.list()) ids.push(model.id);
    expect(ids).to.deep.equal([ID, 'other']);
    expect(await client.models.retrieve(ID)).to.include({ id: ID, object: 'model', context_length: 2048 });
    expect(await failureOf(client.models.retrieve('no/such'))).to.be.instanceOf(OpenAI.NotFoundError);
  });

  it('completes, streaming and not', async () => {
    await using app = await ScriptedApp.start([speaks]);
    const { completions } = clientOf(app);
    const whole = await completions.create({ model: ID, prompt: ['a', 'b'] });
    expect(whole.choices.map((choice) => choice.text)).to.deep.equal(['a!', 'b!']);
    let text = '';
    for await (const chunk of await completions.create({ model: ID, prompt: 'a', stream: true })) {
      text += chunk.choices[0]!.text;
    }
    expect(text).to.equal('a!');
  });

  const errors: readonly [name: string, EngineError['code'], unknown, number][] = [
    ['BadRequestError', 'context_length_exceeded', OpenAI.BadRequestError, 400],
    ['PermissionDeniedError', 'gated', OpenAI.PermissionDeniedError, 403],
    ['NotFoundError', 'model_not_found', OpenAI.NotFoundError, 404],
    ['UnprocessableEntityError', 'model_broken', OpenAI.UnprocessableEntityError, 422],
    ['RateLimitError', 'queue_full', OpenAI.RateLimitError, 429],
    ['InternalServerError', 'hub_unreachable', OpenAI.InternalServerError, 502],
  ];
  for (const [name, code, errorClass, status] of errors) {
    it(`throws ${name} for ${code}`, async () => {
      await using app = await ScriptedApp.start([
        { id: ID, chat: () => [{ fail: new EngineError(code, 'the reason') }] },
      ]);
      for (const stream of [false, true]) {
        const error = await failureOf(clientOf(app).chat.completions.create({ model: ID, messages: MESSAGES, stream }));
        expect(error).to.be.instanceOf(errorClass);
        expect(error.status).to.equal(status);
        expect(error.message).to.include('the reason');
        expect(error.requestID).to.be.a('string');
      }
    });
  }

  it('throws AuthenticationError for a wrong key', async () => {
    await using app = await ScriptedApp.start([speaks], { apiKeys: ['other'] });
    expect(await failureOf(clientOf(app).models.list())).to.be.instanceOf(OpenAI.AuthenticationError);
  });

  it('throws APIError for a failure in the middle of a stream', async () => {
    const fail = new EngineError('timeout', 'too slow');
    await using app = await ScriptedApp.start([{ id: ID, chat: () => [started, content('a'), { fail }] }]);
    const stream = await clientOf(app).chat.completions.create({ model: ID, messages: MESSAGES, stream: true });
    const seen: unknown[] = [];
    const error = await failureOf(
      (async () => {
        for await (const chunk of stream) seen.push(chunk.choices[0]?.delta.content);
      })(),
    );
    expect(seen).to.deep.equal(['', 'a']);
    expect(error).to.be.instanceOf(OpenAI.APIError);
    expect(error).to.include({ code: 'timeout', type: 'server_error' });
  });

  it('repeats what may pass by itself and nothing else', async () => {
    const tries = async (code: EngineError['code']): Promise<number> => {
      await using app = await ScriptedApp.start([{ id: ID, chat: () => [{ fail: new EngineError(code, 'no') }] }]);
      const client = clientOf(app, { maxRetries: 1 });
      await failureOf(client.chat.completions.create({ model: ID, messages: MESSAGES }));
      return app.registry.asked.length;
    };
    expect(await tries('hub_unreachable')).to.equal(1);
    expect(await tries('model_broken')).to.equal(1);
    expect(await tries('internal')).to.equal(1);
    expect(await tries('closed')).to.equal(2);
  });
});
