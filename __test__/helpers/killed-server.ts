/**
 * A server over a store in a file, to be killed: `killed-server FILE`. Says its port, then `called` whenever its tool is
 * called. Asked "wait" the model begins and never ends; its tool never answers.
 */

import { writeSync } from 'node:fs';

import type { ChatRequest } from '../../ts/chat/types.js';
import { McpPool } from '../../ts/mcp/client-pool.js';
import { openSqliteStore } from '../../ts/responses/sqlite-store.js';
import { ScriptedApp } from './scripted-app.js';
import { adds, waitingCalculator } from './scripted-mcp.js';
import { content, finished, started } from './scripted-events.js';
import type { ScriptedModelOptions } from './scripted-registry.js';

/** What it says, `text` being what it was asked. */
export function echo(text: string): string {
  return `${text} and ${text.repeat(100)}`;
}

export const MODEL: ScriptedModelOptions = {
  id: 'org/model',
  chat: (request: ChatRequest) => {
    const { content: asked } = request.messages.at(-1)!;
    const text = typeof asked === 'string' ? asked : '';
    if (text === 'wait') return [started, content('half '), { wait: new Promise(() => undefined) }];
    if (request.tools !== undefined) return adds(request);
    return [
      started,
      ...echo(text)
        .match(/.{1,200}/gs)!
        .map((piece) => content(piece)),
      finished(),
    ];
  },
};

const [file] = process.argv.slice(2);
if (process.argv[1]?.endsWith('killed-server.ts') === true && file !== undefined) {
  const calc = waitingCalculator(
    () => writeSync(1, 'called\n'),
    () => undefined,
  );
  const app = await ScriptedApp.start([MODEL], {
    responses: openSqliteStore(file),
    mcp: { pool: new McpPool(), servers: new Map([['calc', calc]]) },
  });
  writeSync(1, `${app.port}\n`);
}
