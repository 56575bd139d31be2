/** A conversation at the terminal: reads lines, streams answers, obeys /commands. Works with piped input too. */

import { writeFile } from 'node:fs/promises';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { styleText } from 'node:util';

import type { AnswerDelta, ChatClient, ChatSettings, WireMessage } from './chat-client.js';
import { CliFailure, sentenceOf } from './failure.js';
import { plural, printable } from './format.js';

type Stream<S> = S & { readonly isTTY?: boolean };

export interface ChatTerminal {
  readonly input: Stream<Readable>;
  readonly output: Stream<Writable>;
  /** Figures and notes go here, so that piped output holds the answers alone. */
  readonly notes: Stream<Writable>;
}

const help = `/help            this list
/clear           start a new conversation
/system [TEXT]   set the system prompt; without a text, remove it
/save [FILE]     write the conversation to a JSON file
/exit            leave (Ctrl-D does too)
A line that ends in \\ goes on in the next one. Ctrl-C stops an answer.`;

export class ChatSession {
  readonly #client: ChatClient;
  readonly #settings: ChatSettings;
  readonly #terminal: ChatTerminal;
  readonly #interactive: boolean;
  #system: string | undefined;
  #messages: WireMessage[] = [];
  #answering: AbortController | undefined;
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
    const lines = createInterface({
      input: this.#terminal.input,
      ...(this.#interactive ? { output: this.#terminal.output } : {}),
      terminal: this.#interactive,
      prompt: '> ',
    });
    const onInterrupt = (): void => this.#interrupt(lines);
    if (this.#interactive) lines.on('SIGINT', onInterrupt);
    process.on('SIGINT', onInterrupt);
    try {
      this.#note(`${this.#settings.model}: /help lists the commands`);
      if (this.#interactive) lines.prompt();
      let unfinished = '';
      for await (const line of lines) {
        this.#wantsToLeave = false;
        if (line.endsWith('\\')) {
          unfinished += `${line.slice(0, -1)}\n`;
          continue;
        }
        const whole = unfinished + line;
        unfinished = '';
        if (whole.trim() === '/exit') break;
        await this.#handle(whole);
        if (this.#interactive) lines.prompt();
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
      if (text.startsWith('/')) await this.#command(text);
      else await this.#ask(line);
    } catch (error) {
      this.#failed = true;
      this.#terminal.notes.write(`${error instanceof CliFailure ? error.message : sentenceOf(error)}\n`);
    }
  }

  async #command(text: string): Promise<void> {
    const [name = '', ...words] = text.split(/\s+/);
    const rest = text.slice(name.length).trim();
    switch (name) {
      case '/help':
        this.#terminal.notes.write(`${help}\n`);
        return;
      case '/clear':
        this.#messages = [];
        this.#note('a new conversation');
        return;
      case '/system':
        this.#system = rest === '' ? undefined : rest;
        this.#note(rest === '' ? 'no system prompt' : 'system prompt set');
        return;
      case '/save':
        await this.#save(words.join(' '));
        return;
      default:
        throw new CliFailure(`there is no command ${name}: /help lists them`);
    }
  }

  async #save(name: string): Promise<void> {
    const file = name === '' ? `tsserve-chat-${new Date().toISOString().replace(/[:.]/g, '-')}.json` : name;
    const conversation = { model: this.#settings.model, messages: this.#conversation() };
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

  /** Ctrl-C: stops the answer; at a prompt it clears the line, and the second time leaves. */
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
    this.#wantsToLeave = true;
    this.#terminal.output.write('\n');
    this.#note('press Ctrl-C again, or Ctrl-D, to leave');
    // Clears what was typed, as a shell does.
    lines.write(null, { ctrl: true, name: 'e' });
    lines.write(null, { ctrl: true, name: 'u' });
    lines.prompt();
  }

  #note(text: string): void {
    const { notes } = this.#terminal;
    notes.write(`${notes.isTTY === true ? styleText('dim', text) : text}\n`);
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
