#!/usr/bin/env node
/** The command line: `tsserve <command>`. Exit code 0: done; 1: it could not be done; 2: asked wrongly. */

import { readFileSync } from 'node:fs';

import { Command, CommanderError } from 'commander';

import { CliFailure, sentenceOf } from './failure.js';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

/** In the order of the help. Each is imported when it is needed: `serve` is most of the program. */
const COMMANDS: Readonly<Record<string, (program: Command) => Promise<void>>> = {
  serve: async (program) => (await import('./serve.js')).addServeCommand(program, version),
  chat: async (program) => (await import('./chat.js')).addChatCommand(program),
  transcribe: async (program) => (await import('./transcribe.js')).addTranscribeCommand(program),
  list: async (program) => (await import('./list.js')).addListCommand(program),
  doctor: async (program) => (await import('./doctor.js')).addDoctorCommand(program),
};

process.exitCode = await main(process.argv);

/** Runs one command; resolves to the exit code when the command is over. */
async function main(argv: readonly string[]): Promise<number> {
  const program = new Command('tsserve')
    .description('Serves local models behind the OpenAI API, without Python.')
    .version(version)
    .exitOverride()
    .configureOutput({ outputError: (message, write) => write(usageSentence(message)) })
    .showSuggestionAfterError()
    .helpCommand('help [command]', 'help for a command');
  for (const name of commandsFor(argv.slice(2))) await COMMANDS[name]?.(program);
  try {
    await program.parseAsync(argv);
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    process.stderr.write(`tsserve: ${sentenceOf(error)}\n`);
    return error instanceof CliFailure ? error.exitCode : 1;
  }
}

/** The command that is named; all of them for help, and for a name that is not known. */
function commandsFor([first = '']: readonly string[]): readonly string[] {
  if (first === '--version' || first === '-V') return [];
  return Object.hasOwn(COMMANDS, first) ? [first] : Object.keys(COMMANDS);
}

/** Commander's message as one line that names the program. */
function usageSentence(message: string): string {
  return `tsserve: ${message
    .replace(/^error: /, '')
    .trim()
    .replace(/\.?\n/g, ' ')}\n`;
}
