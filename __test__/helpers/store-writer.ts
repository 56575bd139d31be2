/** Writes responses to a store for ever, and says each id once it is written: `store-writer FILE PREFIX`. */

import { writeSync } from 'node:fs';

import { parseCreateResponse } from '../../ts/protocol/responses.js';
import { toEcho } from '../../ts/responses/echo.js';
import { ResponseMachine } from '../../ts/responses/event-machine.js';
import { openSqliteStore } from '../../ts/responses/sqlite-store.js';
import { content, finished } from './scripted-events.js';

const [file = '', prefix = ''] = process.argv.slice(2);
const request = parseCreateResponse({ input: 'hi' }, { strict: true, warn: () => undefined });
const store = openSqliteStore(file).of(undefined);
for (let i = 0; ; i++) {
  const id = `resp_${prefix}_${i}`;
  const machine = new ResponseMachine({ id, createdAt: 1, echo: toEcho(request, 'm', undefined) });
  machine.start();
  machine.push(content('x'.repeat(5_000)));
  machine.push(finished());
  machine.finish();
  store.put({ response: machine.snapshot, input: [] });
  writeSync(1, `${id}\n`);
}
