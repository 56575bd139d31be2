/** Are Node, Rust and a C compiler here, and new enough? */

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';

import { capture, root, Stop } from './terminal.mjs';

export function checkNode(version = process.versions.node) {
  const [major, minor] = version.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  throw new Stop(`Node ${version} is too old: install Node 20.19 or newer`);
}

export async function checkRust() {
  const home = join(process.env.CARGO_HOME ?? join(homedir(), '.cargo'), 'bin');
  if (existsSync(home) && !process.env.PATH?.split(delimiter).includes(home)) {
    process.env.PATH = `${process.env.PATH ?? ''}${delimiter}${home}`;
  }
  const wanted = /channel = "([^"]+)"/.exec(await readFile(join(root, 'rust-toolchain.toml'), 'utf8'))[1];
  const install = `install Rust ${wanted} with rustup (https://rustup.rs) and run this again`;
  const cargo = await capture('cargo', ['--version']);
  if (cargo.missing) throw new Stop(`Rust is missing: ${install}`);
  const found = /cargo (\d+)\.(\d+)/.exec(cargo.text);
  if (cargo.code !== 0 || found === null) {
    throw new Stop(
      `the Rust toolchain ${wanted} could not be used (${firstLine(cargo.text)}): run 'rustup toolchain install ${wanted}'`,
    );
  }
  const [major, minor] = wanted.split('.').map(Number);
  if (Number(found[1]) < major || (Number(found[1]) === major && Number(found[2]) < minor)) {
    throw new Stop(`Rust ${found[1]}.${found[2]} is too old: ${install}`);
  }
  if (process.platform !== 'win32' && (await capture(process.env.CC ?? 'cc', ['--version'])).code !== 0) {
    const how = process.platform === 'darwin' ? "'xcode-select --install'" : "Debian's build-essential, for example";
    throw new Stop(`a C compiler is missing: install one (${how}) and run this again`);
  }
}

function firstLine(text) {
  return text.trim().split('\n', 1)[0] || 'no output';
}
