/**
 * `node scripts/check-aarch64.mjs`: the CPU kernels for aarch64, from any machine: clippy, the type check for macOS, and
 * the tests under emulation of a processor with every instruction and of two with fewer. It needs a cross compiler and qemu (see CONTRIBUTING.md), and says what it skips without.
 */

import * as checks from './lib/checks.mjs';
import { runScript } from './lib/terminal.mjs';

await runScript(() => checks.runChecks([checks.armClippy, checks.appleKernels, checks.armTests, checks.olderArmTests]));
