import { McpServer as SdkServer } from '@modelcontextprotocol/server';
import { expect } from 'chai';

import type { ChatMessage } from '../ts/chat/types.js';
import { EngineError } from '../ts/engine/types.js';
import { callIdOfApproval, pendingApprovals } from '../ts/mcp/approval.js';
import { McpPool } from '../ts/mcp/client-pool.js';
import { historyName } from '../ts/mcp/history.js';
import type { ToolLoopEvent, ToolLoopFinished } from '../ts/mcp/loop-events.js';
import { runToolLoop, type ToolLoopOptions } from '../ts/mcp/tool-loop.js';
import { inMemory, never } from './helpers/mcp-servers.js';
import { rejection } from './helpers/rejection.js';
import {
  anyArguments,
  calls,
  finished,
  says,
  ScriptedModel,
  server,
  type Event,
} from './helpers/scripted-mcp-model.js';
import { Gate } from './helpers/scripted-registry.js';

describe('MCP tool loop', () => {
  let pool: McpPool;
  let ids = 0;

  beforeEach(() => {
    pool = new McpPool();
    ids = 0;
  });
  afterEach(() => pool.close());

  const question: ChatMessage = { role: 'user', content: 'question' };

  function start(model: ScriptedModel, options: Partial<ToolLoopOptions>): AsyncGenerator<ToolLoopEvent, void> {
    const request = { messages: [question] };
    return runToolLoop({ model, pool, request, servers: [], newId: () => String(++ids), ...options });
  }

  async function run(model: ScriptedModel, options: Partial<ToolLoopOptions>): Promise<ToolLoopEvent[]> {
    const events: ToolLoopEvent[] = [];
    for await (const event of start(model, options)) events.push(event);
    return events;
  }

  function end(events: readonly ToolLoopEvent[]): ToolLoopFinished {
    const last = events.at(-1)!;
    expect(last.type).to.equal('finished');
    return last as ToolLoopFinished;
  }

  /** "type" or "type id". */
  function outline(events: readonly ToolLoopEvent[]): string[] {
    return events.map((event) => ('id' in event ? `${event.type} ${event.id}` : event.type));
  }

  const adder = inMemory('math', server({ add: ({ a, b }) => String(Number(a) + Number(b)) }));

  it('lists, asks, calls, tells, and answers', async () => {
    const model = new ScriptedModel([calls(['add', { a: 12, b: 30 }]), says('It is 42.')]);
    const events = await run(model, { servers: [never(adder)] });
    expect(outline(events)).to.deep.equal([
      'list_tools_started',
      'list_tools_finished',
      'turn_started',
      'mcp_call_started mcp_1',
      'mcp_call_arguments_delta mcp_1',
      'mcp_call_arguments mcp_1',
      'turn_finished',
      'mcp_call_completed mcp_1',
      'turn_started',
      'model',
      'turn_finished',
      'finished',
    ]);
    expect(events[3]).to.deep.include({ serverLabel: 'math', name: 'add' });
    expect(events[7]).to.deep.include({ output: '42' });
    expect(model.requests[0]!.tools!.map(({ name }) => name)).to.deep.equal(['add']);
    const toolCalls = [{ id: 'mcp_1', name: 'add', arguments: '{"a":12,"b":30}' }];
    const added: ChatMessage[] = [
      { role: 'assistant', content: null, toolCalls },
      { role: 'tool', name: 'add', toolCallId: 'mcp_1', content: '42' },
    ];
    expect(model.requests[1]!.messages).to.deep.equal([question, ...added]);
    expect(end(events)).to.deep.equal({
      type: 'finished',
      reason: 'stop',
      usage: { promptTokens: 20, cachedTokens: 8, completionTokens: 10 },
      timings: { queued: 0, prefill: 2, decode: 4 },
      messages: [...added, { role: 'assistant', content: 'It is 42.' }],
    });
  });

  it('answers without servers as the model does', async () => {
    const model = new ScriptedModel([says('Hello.')]);
    const events = await run(model, {});
    expect(outline(events)).to.deep.equal(['turn_started', 'model', 'turn_finished', 'finished']);
    expect(model.last()).to.not.have.property('tools');
  });

  it('keeps apart the equal names of two servers and of the client', async () => {
    const one = inMemory('one', server({ echo: () => 'from one', alone: () => '' }));
    const two = inMemory('two', server({ echo: () => 'from two', mine: () => 'from two' }));
    const model = new ScriptedModel([calls(['two__echo', {}], ['one__echo', {}], ['two__mine', {}]), says('done')]);
    const events = await run(model, {
      servers: [never(one), never(two)],
      request: { messages: [question], tools: [{ name: 'mine' }] },
    });
    expect(model.requests[0]!.tools!.map(({ name }) => name)).to.deep.equal([
      'mine',
      'one__echo',
      'alone',
      'two__echo',
      'two__mine',
    ]);
    const outputs = events.flatMap((event) => (event.type === 'mcp_call_completed' ? [event.output] : []));
    expect(outputs).to.deep.equal(['from two', 'from one', 'from two']);
  });

  it('offers and runs only what is allowed', async () => {
    let ran = 0;
    const many = inMemory('many', server({ get_a: () => 'a', delete_a: () => String(ran++), get_b: () => 'b' }));
    const allowedTools = { readOnly: true, toolNames: ['get_a', 'delete_a'] };
    const model = new ScriptedModel([calls(['delete_a', {}], ['get_b', {}], ['get_a', {}]), says('done')]);
    const events = await run(model, { servers: [{ ...never(many), allowedTools }] });
    expect(model.requests[0]!.tools!.map(({ name }) => name)).to.deep.equal(['get_a']);
    expect(events[1]).to.have.property('tools').that.has.length(1);
    expect(outline(events).filter((line) => line.startsWith('mcp_call_started'))).to.have.length(1);
    const told = model.last().messages.filter(({ role }) => role === 'tool');
    expect(told.map(({ content }) => content)).to.deep.equal([
      'There is no tool named "delete_a".',
      'There is no tool named "get_b".',
      'a',
    ]);
    expect(ran).to.equal(0);
  });

  it('runs calls side by side, within bounds, and reports them in their order', async () => {
    const first = new Gate();
    let running = 0;
    let most = 0;
    const order: string[] = [];
    const slow = inMemory(
      'slow',
      server({
        wait: async ({ name }) => {
          most = Math.max(most, ++running);
          if (name === 'a') await first.opened;
          else if (name === 'c') first.open();
          // Time for a third call to begin, were it let in.
          else await new Promise((resolve) => setImmediate(resolve));
          running--;
          order.push(String(name));
          return String(name);
        },
      }),
    );
    const model = new ScriptedModel([
      calls(...['a', 'b', 'c'].map((name) => ['wait', { name }] as const)),
      says('done'),
    ]);
    const events = await run(model, { servers: [never(slow)], parallel: 2 });
    expect(most).to.equal(2);
    expect(order).to.deep.equal(['b', 'c', 'a']);
    const outputs = events.flatMap((event) => (event.type === 'mcp_call_completed' ? [event.output] : []));
    expect(outputs).to.deep.equal(['a', 'b', 'c']);
  });

  it('tells the model of failures, and goes on', async () => {
    const failing = inMemory(
      'failing',
      server({ fail: () => ({ isError: true, content: [{ type: 'text', text: 'no such city' }] }) }),
    );
    const model = new ScriptedModel([calls(['fail', {}]), says('I could not find it.')]);
    const events = await run(model, { servers: [never(failing)] });
    expect(events.find(({ type }) => type === 'mcp_call_failed')).to.have.deep.property('error', {
      type: 'mcp_tool_execution_error',
      content: [{ type: 'text', text: 'no such city' }],
    });
    expect(model.last().messages.at(-1)!.content).to.equal('Error: no such city');
    expect(end(events).reason).to.equal('stop');
  });

  it('goes on without a server that cannot be listed', async () => {
    const broken = {
      ...adder,
      label: 'broken',
      reach: { type: 'custom', key: 'broken', open: () => Promise.reject(new Error('x')) },
    };
    const model = new ScriptedModel([says('Fine.')]);
    const events = await run(model, {
      servers: [never(broken as never), never(adder)],
      toolChoice: { serverLabel: 'broken' },
    });
    expect(outline(events).slice(0, 4)).to.deep.equal([
      'list_tools_started',
      'list_tools_failed',
      'list_tools_started',
      'list_tools_finished',
    ]);
    expect(events[1]).to.deep.include({
      serverLabel: 'broken',
      error: { type: 'mcp_protocol_error', code: -32000, message: "server 'broken': the connection failed" },
    });
    expect(model.last().tools!.map(({ name }) => name)).to.deep.equal(['add']);
    expect(model.last().toolChoice).to.equal('auto');
  });

  it('does not list again what the conversation holds', async () => {
    const model = new ScriptedModel([says('Fine.')]);
    const knownTools = new Map([['math', [{ name: 'known', inputSchema: { type: 'object' } }]]]);
    const events = await run(model, { servers: [never(adder)], knownTools });
    expect(events[0]!.type).to.equal('turn_started');
    expect(model.last().tools!.map(({ name }) => name)).to.deep.equal(['known']);
    expect(pool.size).to.equal(0);
  });

  it("ends at the client's functions, after the servers' calls of the turn", async () => {
    const model = new ScriptedModel([calls(['mine', { x: 1 }], ['add', { a: 1, b: 2 }], ['mine', { x: 2 }])]);
    const events = await run(model, {
      servers: [never(adder)],
      request: { messages: [question], tools: [{ name: 'mine' }] },
    });
    expect(end(events).reason).to.equal('function_calls');
    const functions = events.flatMap((event) => (event.type === 'function_call' ? [event.event] : []));
    expect(functions.map(({ type, index }) => [type, index])).to.deep.equal([
      ['tool_call', 0],
      ['tool_call_arguments', 0],
      ['tool_call_done', 0],
      ['tool_call', 1],
      ['tool_call_arguments', 1],
      ['tool_call_done', 1],
    ]);
    expect(end(events).messages.map(({ role, content }) => [role, content])).to.deep.equal([
      ['assistant', null],
      ['tool', '3'],
    ]);
    expect(end(events).messages[0]!.toolCalls!.map(({ id }) => id)).to.deep.equal(['call_0', 'mcp_1', 'call_2']);
  });

  describe('approvals', () => {
    const requested = { server: adder, requireApproval: 'always' } as const;

    it('are asked for and end the loop; nothing is run', async () => {
      const model = new ScriptedModel([calls(['add', { a: 1, b: 2 }])]);
      const events = await run(model, { servers: [requested] });
      expect(outline(events).slice(2)).to.deep.equal([
        'turn_started',
        'turn_finished',
        'approval_requested',
        'finished',
      ]);
      expect(events.at(-2)).to.deep.equal({
        type: 'approval_requested',
        request: { id: 'mcpr_1', serverLabel: 'math', name: 'add', arguments: '{"a":1,"b":2}' },
      });
      expect(end(events).reason).to.equal('approval');
    });

    const request = { id: 'mcpr_1', serverLabel: 'math', name: 'add', arguments: '{"a":1,"b":2}' };
    const toolCalls = [
      { id: callIdOfApproval('mcpr_1'), name: historyName('math', 'add'), arguments: request.arguments },
    ];
    const conversation: ChatMessage[] = [
      question,
      { role: 'assistant', content: null, toolCalls },
      { role: 'user', content: 'go on' },
    ];

    it('when given, run the call, once, where it belongs', async () => {
      const answers = [{ approvalRequestId: 'mcpr_1', approve: true }];
      const { decisions } = pendingApprovals({ requests: [request], answers, executed: [] });
      const model = new ScriptedModel([says('3')]);
      const options = { servers: [requested], request: { messages: conversation } };
      const events = await run(model, { ...options, approvals: decisions });
      expect(outline(events).slice(2, 7)).to.deep.equal([
        'mcp_call_started mcp_1',
        'mcp_call_arguments_delta mcp_1',
        'mcp_call_arguments mcp_1',
        'mcp_call_completed mcp_1',
        'turn_started',
      ]);
      expect(events[2]).to.deep.include({ approvalRequestId: 'mcpr_1', serverLabel: 'math', name: 'add' });
      expect(model.last().messages).to.deep.equal([
        question,
        { role: 'assistant', content: null, toolCalls: [{ ...toolCalls[0], name: 'add' }] },
        { role: 'tool', name: 'add', toolCallId: 'mcp_1', content: '3' },
        { role: 'user', content: 'go on' },
      ]);
      // The same answer again, after the call is in the conversation.
      expect(pendingApprovals({ requests: [request], answers, executed: ['mcpr_1'] }).decisions).to.deep.equal([]);
    });

    it('when denied, are told to the model', async () => {
      const decision = { ...request, approve: false, reason: 'too dear' };
      const model = new ScriptedModel([says('All right.')]);
      const events = await run(model, {
        servers: [requested],
        request: { messages: conversation },
        approvals: [decision],
      });
      expect(outline(events).slice(2, 4)).to.deep.equal(['approval_denied', 'turn_started']);
      expect(model.last().messages[2]).to.deep.equal({
        role: 'tool',
        name: 'add',
        toolCallId: 'mcp_1',
        content: 'The user did not allow this call, and it was not run. Their reason: too dear',
      });
    });

    it('when not answered, are told as well', async () => {
      const model = new ScriptedModel([says('All right.')]);
      await run(model, { servers: [requested], request: { messages: conversation } });
      expect(model.last().messages[2]!.content).to.contain('has not answered');
    });

    it('are given only to tools that are allowed', async () => {
      const model = new ScriptedModel([says('Sorry.')]);
      const approvals = [{ ...request, approve: true }];
      const events = await run(model, { servers: [{ ...requested, allowedTools: { toolNames: [] } }], approvals });
      expect(events.find(({ type }) => type === 'mcp_call_failed')).to.have.nested.property(
        'error.content[0].text',
        'the server does not offer this tool',
      );
    });

    it('may be needed for some tools only', async () => {
      const both = inMemory('both', server({ get_x: () => 'x', set_x: () => 'set' }));
      const requireApproval = { never: { readOnly: true } };
      const model = new ScriptedModel([calls(['get_x', {}], ['set_x', {}])]);
      const events = await run(model, { servers: [{ server: both, requireApproval }] });
      const kinds = events.map(({ type }) => type);
      expect(kinds).to.include.members(['mcp_call_completed', 'approval_requested']);
      expect(kinds.indexOf('mcp_call_completed')).to.be.lessThan(kinds.indexOf('approval_requested'));
      expect(end(events).reason).to.equal('approval');
    });
  });

  describe('bounds', () => {
    const again = calls(['add', { a: 1, b: 1 }]);

    it('withholds the tools in the last turn', async () => {
      const model = new ScriptedModel([again, again, says('Enough.')]);
      const events = await run(model, { servers: [never(adder)], maxTurns: 3, toolChoice: 'required' });
      expect(model.requests.map(({ tools }) => tools?.length ?? 0)).to.deep.equal([1, 1, 0]);
      expect(model.requests.map(({ toolChoice }) => toolChoice)).to.deep.equal(['required', 'auto', 'auto']);
      // Told so in words, which the conversation does not keep.
      expect(model.last().messages.at(-1)).to.deep.include({ role: 'user' });
      expect(end(events).messages.map(({ role }) => role)).not.to.include('user');
      expect(end(events).reason).to.equal('stop');
    });

    it('ends when even then the model calls', async () => {
      const model = new ScriptedModel([again, again]);
      const events = await run(model, { servers: [never(adder)], maxTurns: 2 });
      expect(events.at(-2)).to.have.nested.property(
        'error.content[0].text',
        'no further calls of tools are run for this request',
      );
      expect(end(events).reason).to.equal('max_turns');
    });

    it('runs at most maxToolCalls', async () => {
      const model = new ScriptedModel([calls(...[1, 2, 3].map((a) => ['add', { a, b: 0 }] as const)), says('done')]);
      const events = await run(model, { servers: [never(adder)], maxToolCalls: 2 });
      const ends = events.flatMap(({ type }) => (/completed|failed/.test(type) ? [type] : []));
      expect(ends).to.deep.equal(['mcp_call_completed', 'mcp_call_completed', 'mcp_call_failed']);
      expect(model.last()).to.not.have.property('tools');
    });

    it('holds allowed_tools at the call', async () => {
      const both = inMemory('both', server({ x: () => 'x', y: () => 'y' }));
      const model = new ScriptedModel([calls(['y', {}]), says('done')]);
      const toolChoice = { allowed: [{ serverLabel: 'both', name: 'x' }], mode: 'required' } as const;
      await run(model, { servers: [never(both)], toolChoice });
      expect(model.requests.map((request) => request.toolChoice)).to.deep.equal([
        { allowed: ['x'], mode: 'required' },
        { allowed: ['x'], mode: 'auto' },
      ]);
      expect(model.last().messages.at(-1)!.content).to.equal('There is no tool named "y".');
    });
  });

  it('runs nothing of an answer that was cut off', async () => {
    const cut: Event[] = [
      { type: 'tool_call', index: 0, id: 'call_0', name: 'add' },
      { type: 'tool_call_arguments', index: 0, delta: '{"a": 1' },
      finished('length'),
    ];
    const events = await run(new ScriptedModel([cut]), { servers: [never(adder)] });
    expect(outline(events).slice(-3)).to.deep.equal(['turn_finished', 'mcp_call_incomplete mcp_1', 'finished']);
    expect(end(events).reason).to.equal('length');
  });

  it('refuses arguments that are no object', async () => {
    const odd: Event[] = [
      { type: 'tool_call', index: 0, id: 'call_0', name: 'add' },
      { type: 'tool_call_arguments', index: 0, delta: '[1, 2]' },
      { type: 'tool_call_done', index: 0 },
      finished('tool_calls'),
    ];
    const model = new ScriptedModel([odd, says('Oh.')]);
    await run(model, { servers: [never(adder)] });
    expect(model.last().messages.at(-1)!.content).to.equal('Error: the arguments must be a JSON object');
  });

  it('names earlier calls as the tools are named today', async () => {
    const id = 'mcp_9';
    const messages: ChatMessage[] = [
      question,
      { role: 'assistant', content: null, toolCalls: [{ id, name: historyName('math', 'add'), arguments: '{}' }] },
      { role: 'tool', toolCallId: id, name: historyName('math', 'add'), content: '0' },
      {
        role: 'assistant',
        content: null,
        toolCalls: [{ id: 'mcp_8', name: historyName('gone', 'old'), arguments: '{}' }],
      },
      { role: 'tool', toolCallId: 'mcp_8', content: '0' },
    ];
    const model = new ScriptedModel([says('Yes.')]);
    await run(model, { servers: [never(adder)], request: { messages, tools: [{ name: 'add' }] } });
    const named = model.last().messages.flatMap(({ toolCalls }) => toolCalls?.map(({ name }) => name) ?? []);
    expect(named).to.deep.equal(['math__add', 'gone__old']);
    expect(model.last().messages[2]!.name).to.equal('math__add');
  });

  it('stops servers and model when it is left', async () => {
    const running = new Gate();
    const stopped = new Gate();
    const make = (): SdkServer => {
      const made = new SdkServer({ name: 'test', version: '1' });
      made.registerTool('wait', { inputSchema: anyArguments }, async (_args, ctx) => {
        running.open();
        await new Promise<void>((resolve) => ctx.mcpReq.signal.addEventListener('abort', () => resolve()));
        stopped.open();
        return { content: [] };
      });
      return made;
    };
    const controller = new AbortController();
    const loop = run(new ScriptedModel([calls(['wait', {}])]), {
      servers: [never(inMemory('slow', make))],
      signal: controller.signal,
    });
    await running.opened;
    controller.abort();
    expect(await rejection(loop, EngineError)).to.have.property('code', 'cancelled');
    await stopped.opened;

    const model = new ScriptedModel([says('Hello.')]);
    for await (const event of start(model, {})) if (event.type === 'model') break;
    expect(model.left).to.equal(1);
  });

  it('throws what the model throws', async () => {
    const model = new ScriptedModel([
      () => {
        throw new EngineError('context_length_exceeded', 'too long');
      },
    ]);
    expect(await rejection(run(model, {}), EngineError)).to.have.property('code', 'context_length_exceeded');
  });
});
