import { expect } from 'chai';

import { cudaSentence } from '../ts/engine/addon.js';

describe('engine: a CUDA addon that does not load', () => {
  const cases: readonly (readonly [name: string, words: string, sentence: RegExp])[] = [
    [
      'without a driver',
      'libcuda.so.1: cannot open shared object file: No such file or directory',
      /^no NVIDIA driver was found on this machine/,
    ],
    [
      'with a driver and no libraries',
      'Error: x\nlibcublas.so.13: cannot open shared object file: No such file or directory',
      /^the NVIDIA driver is there but the CUDA libraries are not: libcublas\.so\.13 /,
    ],
    [
      'with a driver and no cuRAND',
      'libcurand.so.10: cannot open shared object file: No such file or directory',
      /^the NVIDIA driver is there but the CUDA libraries are not: libcurand\.so\.10 /,
    ],
    [
      'for another reason',
      'version GLIBC_2.99 not found\nmore',
      /^the CUDA addon could not be loaded: version GLIBC_2\.99/,
    ],
  ];
  for (const [name, words, sentence] of cases) {
    it(name, () => {
      expect(cudaSentence(words)).to.match(sentence);
      expect(cudaSentence(words)).not.to.contain('\n');
    });
  }
});
