/** `tsserve chat [URL]`: talk to a model that a server serves. */

import { Option, type Command } from 'commander';

import { ChatClient, serviceRoot } from './chat-client.js';
import { fileHistory, historyFile } from './chat-history.js';
import { ChatSession } from './chat-session.js';
import { CliFailure } from './failure.js';
import { ProgressLine } from './progress.js';
import { decimal, wholeNumber } from './values.js';

interface ChatFlags {
  readonly model?: string;
  readonly modelNameOrPath?: string;
  readonly apiKey?: string;
  readonly system?: string;
  readonly temperature?: number;
  readonly maxTokens?: number;
  readonly seed?: number;
  readonly history: boolean;
}

export function addChatCommand(program: Command): void {
  program
    .command('chat')
    .summary('talk to a served model at the terminal')
    .description('Talks to a model of a running server. Ctrl-C stops an answer; !help lists the commands.')
    .argument('[url]', "the server's address, with or without scheme and /v1", 'http://localhost:8000')
    .option('-m, --model <id>', 'model to talk to (default: the first one that the server lists)')
    .addOption(new Option('--model-name-or-path <id>', 'the same as --model').conflicts('model'))
    .addOption(new Option('--api-key <key>', 'key of the server').env('TSSERVE_API_KEY'))
    .option('--system <text>', 'system prompt')
    .option('--temperature <number>', 'randomness, 0 to 2 (default: as the server decides)', decimal(0, 2))
    .option('--max-tokens <n>', 'longest answer in tokens', wholeNumber(1))
    .option('--seed <n>', 'repeatable randomness', wholeNumber(0))
    .option('--no-history', 'neither read nor keep the lines that are typed')
    .action(chat);
}

async function chat(url: string, flags: ChatFlags): Promise<void> {
  const client = new ChatClient({ baseUrl: serviceRoot(url), apiKey: flags.apiKey });
  const model = flags.model ?? flags.modelNameOrPath ?? (await firstModel(client));
  const { temperature, maxTokens, seed } = flags;
  const fields = { temperature, max_tokens: maxTokens, seed };
  if (process.stdin.isTTY && process.stdout.isTTY) await load(client, model);
  const session = new ChatSession(client, { model, fields }, flags.system, {
    input: process.stdin,
    output: process.stdout,
    notes: process.stderr,
    ...(flags.history ? { history: fileHistory(historyFile()) } : {}),
  });
  process.exitCode = await session.run();
}

/** Waits at the terminal until the model is there, where the server can tell. */
async function load(client: ChatClient, model: string): Promise<void> {
  const line = new ProgressLine(process.stderr);
  try {
    await client.load(model, (event) => {
      if (event.status !== 'loading' || event.progress === undefined) return;
      const { current: done, total } = event.progress;
      if (event.stage === 'download') line.update({ stage: 'download', file: model, done, total });
      else if (event.stage === 'weights') line.update({ stage: 'weights', done, total });
    });
  } finally {
    line.end();
  }
}

async function firstModel(client: ChatClient): Promise<string> {
  const [first] = await client.models();
  if (first === undefined) {
    throw new CliFailure(
      "the server has no models: start it with one ('tsserve serve MODEL'), or name one with --model",
    );
  }
  return first;
}
