#!/usr/bin/env node
/** The command line: `tsserve <command>`. Exit code 0: done; 1: it could not be done; 2: asked wrongly. */

import { readFileSync } from 'node:fs';

import { Command, CommanderError } from 'commander';

import { addChatCommand } from './chat.js';
import { addDoctorCommand } from './doctor.js';
import { CliFailure, sentenceOf } from './failure.js';
import { addListCommand } from './list.js';
import { addServeCommand } from './serve.js';
import { addTranscribeCommand } from './transcribe.js';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
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
  addServeCommand(program, version);
  addChatCommand(program);
  addTranscribeCommand(program);
  addListCommand(program);
  addDoctorCommand(program);
  try {
    await program.parseAsync(argv);
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    process.stderr.write(`tsserve: ${sentenceOf(error)}\n`);
    return error instanceof CliFailure ? error.exitCode : 1;
  }
}

/** Commander's message as one line that names the program. */
function usageSentence(message: string): string {
  return `tsserve: ${message
    .replace(/^error: /, '')
    .trim()
    .replace(/\.?\n/g, ' ')}\n`;
}
