/** A script that chats and ends without closing anything; run by app-create-engine.test.ts. */

import { openModelEngine } from '../../ts/app/create-engine.js';
import { ScriptedEngine } from './scripted-engine.js';

const engine = await openModelEngine(new ScriptedEngine(), { model: 'org/name' });
const { text } = await engine.chat({ messages: [{ role: 'user', content: 'Hi' }] });
process.stdout.write(`${text}\n`);
