/** A conversation at the terminal: reads lines, streams answers, obeys !commands. Works with piped input too. */

import { writeFile } from 'node:fs/promises';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { styleText } from 'node:util';

import type { AnswerDelta, ChatClient, WireMessage } from './chat-client.js';
import { EXAMPLES } from './chat-examples.js';
import type { History } from './chat-history.js';
import { describeFields, parseAssignments, withField, type ChatSettings } from './chat-settings.js';
import { CliFailure, sentenceOf } from './failure.js';
import { plural, printable } from './format.js';

type Stream<S> = S & { readonly isTTY?: boolean };

export interface ChatTerminal {
  readonly input: Stream<Readable>;
  readonly output: Stream<Writable>;
  /** Figures and notes go here, so that piped output holds the answers alone. */
  readonly notes: Stream<Writable>;
  /** Only used at a terminal. */
  readonly history?: History;
}

const help = `!help                 this list
!status               model, settings and length of the conversation
!clear                start a new conversation
!set NAME=VALUE ...   settings of the answers: !set temperature=0.7 max_tokens=200; NAME=none unsets one.
                      model=ID and system="TEXT" too
!system [TEXT]        set the system prompt; without a text, remove it
!save [FILE]          write settings and conversation to a JSON file
!example [NAME]       start anew with a question to try: ${Object.keys(EXAMPLES).join(', ')}
!exit                 leave (Ctrl-D does too)
Each works with / instead of ! as well. A line that ends in \\ goes on in the next one, and so does all between a line
that starts with """ and one that ends with it. Ctrl-C stops an answer.`;

const FENCE = '"""';

export class ChatSession {
  readonly #client: ChatClient;
  #settings: ChatSettings;
  readonly #terminal: ChatTerminal;
  readonly #interactive: boolean;
  #system: string | undefined;
  #messages: WireMessage[] = [];
  #answering: AbortController | undefined;
  readonly #input = new MultiLine();
  #wantsToLeave = false;
  #failed = false;

  constructor(client: ChatClient, settings: ChatSettings, system: string | undefined, terminal: ChatTerminal) {
    this.#client = client;
    this.#settings = settings;
    this.#system = system;
    this.#terminal = terminal;
    this.#interactive = terminal.input.isTTY === true && terminal.output.isTTY === true;
  }

  /** Runs until the input ends or the user leaves; resolves to the exit code: 1 if piped input met a failure. */
  async run(): Promise<number> {
    const { history } = this.#terminal;
    const lines = createInterface({
      input: this.#terminal.input,
      ...(this.#interactive ? { output: this.#terminal.output } : {}),
      terminal: this.#interactive,
      prompt: '> ',
      ...(this.#interactive && history
        ? { history: history.load(), historySize: 1000, removeHistoryDuplicates: true }
        : {}),
    });
    if (this.#interactive && history) lines.on('history', (typed: string[]) => history.save(typed));
    const onInterrupt = (): void => this.#interrupt(lines);
    if (this.#interactive) lines.on('SIGINT', onInterrupt);
    process.on('SIGINT', onInterrupt);
    try {
      this.#note(`${this.#settings.model}: !help lists the commands`);
      if (this.#interactive) lines.prompt();
      for await (const line of lines) {
        this.#wantsToLeave = false;
        const whole = this.#input.add(line);
        if (whole === undefined) {
          if (this.#interactive) this.#prompt(lines, '… ');
          continue;
        }
        if (/^[!/]exit\s*$/.test(whole.trim())) break;
        await this.#handle(whole);
        if (this.#interactive) this.#prompt(lines, '> ');
      }
    } finally {
      process.off('SIGINT', onInterrupt);
      lines.close();
    }
    return this.#failed && !this.#interactive ? 1 : 0;
  }

  async #handle(line: string): Promise<void> {
    const text = line.trim();
    if (text === '') return;
    try {
      if (/^[!/][a-z]/i.test(text) && !text.includes('\n')) await this.#command(text);
      else await this.#ask(line);
    } catch (error) {
      this.#failed = true;
      this.#terminal.notes.write(`${error instanceof CliFailure ? error.message : sentenceOf(error)}\n`);
    }
  }

  async #command(text: string): Promise<void> {
    const name = /^\S+/.exec(text)?.[0] ?? '';
    const rest = text.slice(name.length).trim();
    switch (name.slice(1)) {
      case 'help':
        this.#terminal.notes.write(`${help}\n`);
        return;
      case 'status':
        this.#terminal.notes.write(`${this.#status()}\n`);
        return;
      case 'clear':
        this.#messages = [];
        this.#note('a new conversation');
        return;
      case 'set':
        this.#set(rest);
        return;
      case 'system':
        this.#system = rest === '' ? undefined : rest;
        this.#note(rest === '' ? 'no system prompt' : 'system prompt set');
        return;
      case 'save':
        await this.#save(rest);
        return;
      case 'example':
        await this.#example(rest);
        return;
      default:
        throw new CliFailure(`there is no command ${name}: !help lists them`);
    }
  }

  #status(): string {
    const { model, fields } = this.#settings;
    const rows = [
      ['model', `${model} at ${this.#client.baseUrl}`],
      ['settings', describeFields(fields)],
      ['system', this.#system ?? 'none'],
      ['messages', String(this.#messages.length)],
    ];
    return rows.map(([name = '', value = '']) => `${name.padEnd(10)}${value}`).join('\n');
  }

  /** All assignments or, if one is wrong, none. */
  #set(text: string): void {
    const assignments = parseAssignments(text);
    if (assignments.length === 0) throw new CliFailure('what is to be set? For example: !set temperature=0.7');
    let settings = this.#settings;
    let system = this.#system;
    for (const assignment of assignments) {
      const { name, value } = assignment;
      if (name === 'system') system = value === undefined || typeof value === 'string' ? value : JSON.stringify(value);
      else settings = withField(settings, assignment);
    }
    const model = settings.model === this.#settings.model ? '' : `model ${settings.model}, `;
    this.#settings = settings;
    this.#system = system;
    this.#note(`${model}settings: ${describeFields(settings.fields)}`);
  }

  async #example(name: string): Promise<void> {
    const question = Object.hasOwn(EXAMPLES, name) ? EXAMPLES[name] : undefined;
    if (question === undefined) {
      const names = Object.keys(EXAMPLES).join(', ');
      throw new CliFailure(name === '' ? `examples: ${names}` : `there is no example ${name}: try ${names}`);
    }
    this.#messages = [];
    this.#note(question);
    await this.#ask(question);
  }

  async #save(name: string): Promise<void> {
    const file = name === '' ? `tsserve-chat-${new Date().toISOString().replace(/[:.]/g, '-')}.json` : name;
    const { model, fields } = this.#settings;
    const conversation = { model, settings: fields, messages: this.#conversation() };
    try {
      await writeFile(file, `${JSON.stringify(conversation, undefined, 2)}\n`);
    } catch (error) {
      throw new CliFailure(`${file} could not be written: ${error instanceof Error ? error.message : String(error)}`);
    }
    this.#note(`saved to ${file}`);
  }

  async #ask(text: string): Promise<void> {
    const { output } = this.#terminal;
    const abort = new AbortController();
    this.#answering = abort;
    const clock = new AnswerClock();
    let answer = '';
    let reasoning = false;
    const onDelta = (delta: AnswerDelta): void => {
      clock.tick();
      if (delta.reasoning !== '') {
        reasoning = true;
        // Thoughts are not part of the answer: they are shown, dimmed, and not piped on.
        if (this.#interactive) output.write(styleText('dim', printable(delta.reasoning)));
      }
      if (delta.content === '') return;
      if (reasoning && this.#interactive) output.write('\n\n');
      reasoning = false;
      answer += delta.content;
      output.write(printable(delta.content));
    };
    try {
      const question: WireMessage = { role: 'user', content: text };
      const end = await this.#client.answer(this.#settings, [...this.#conversation(), question], onDelta, abort.signal);
      output.write('\n');
      this.#messages.push(question, { role: 'assistant', content: answer });
      const cut = end.finishReason === 'length' ? ' · stopped at the token limit' : '';
      this.#note(`${plural(end.tokens, 'token')} · ${clock.rate(end.tokens)}${cut}`);
    } catch (error) {
      if (clock.started) output.write('\n');
      if (!abort.signal.aborted) throw error;
      // What was said stays in the conversation; a question that got no answer does not.
      if (answer !== '') this.#messages.push({ role: 'user', content: text }, { role: 'assistant', content: answer });
      this.#note('stopped');
    } finally {
      this.#answering = undefined;
    }
  }

  #conversation(): WireMessage[] {
    return this.#system === undefined ? this.#messages : [{ role: 'system', content: this.#system }, ...this.#messages];
  }

  /** Ctrl-C: stops the answer; at a prompt it drops what was typed, several lines too, and at an empty one the second leaves. */
  #interrupt(lines: Interface): void {
    if (this.#answering !== undefined) {
      this.#answering.abort();
      return;
    }
    if (!this.#interactive || (this.#wantsToLeave && lines.line === '')) {
      if (this.#interactive) this.#terminal.output.write('\n');
      lines.close();
      return;
    }
    const dropped = this.#input.drop();
    this.#wantsToLeave = !dropped;
    this.#terminal.output.write('\n');
    if (!dropped) this.#note('press Ctrl-C again, or Ctrl-D, to leave');
    // Clears what was typed, as a shell does.
    lines.write(null, { ctrl: true, name: 'e' });
    lines.write(null, { ctrl: true, name: 'u' });
    this.#prompt(lines, '> ');
  }

  #prompt(lines: Interface, prompt: string): void {
    lines.setPrompt(prompt);
    lines.prompt();
  }

  #note(text: string): void {
    const { notes } = this.#terminal;
    notes.write(`${notes.isTTY === true ? styleText('dim', text) : text}\n`);
  }
}

/** Lines that go on: after a backslash at the end, and between two fences. */
class MultiLine {
  #unfinished = '';
  #fenced = false;

  /** What is whole now; undefined while more is to come. */
  add(line: string): string | undefined {
    if (!this.#fenced && this.#unfinished === '' && line.trimStart().startsWith(FENCE)) {
      this.#fenced = true;
      line = line.trimStart().slice(FENCE.length);
    }
    if (this.#fenced) {
      if (!line.trimEnd().endsWith(FENCE)) {
        this.#unfinished += `${line}\n`;
        return undefined;
      }
      this.#fenced = false;
      return this.#take(line.trimEnd().slice(0, -FENCE.length));
    }
    if (line.endsWith('\\')) {
      this.#unfinished += `${line.slice(0, -1)}\n`;
      return undefined;
    }
    return this.#take(line);
  }

  /** Forgets what is unfinished. @returns whether anything was */
  drop(): boolean {
    const unfinished = this.#fenced || this.#unfinished !== '';
    this.#fenced = false;
    this.#unfinished = '';
    return unfinished;
  }

  #take(last: string): string {
    const whole = this.#unfinished + last;
    this.#unfinished = '';
    return whole;
  }
}

/** Measures an answer: time to its first piece, and the pace after it. */
class AnswerClock {
  readonly #asked = performance.now();
  #first: number | undefined;
  #last = 0;

  get started(): boolean {
    return this.#first !== undefined;
  }

  tick(): void {
    this.#last = performance.now();
    this.#first ??= this.#last;
  }

  rate(tokens: number): string {
    if (this.#first === undefined) return 'no text';
    const wait = `first after ${((this.#first - this.#asked) / 1000).toFixed(2)} s`;
    const seconds = (this.#last - this.#first) / 1000;
    return tokens > 1 && seconds > 0 ? `${((tokens - 1) / seconds).toFixed(1)} tok/s · ${wait}` : wait;
  }
}
