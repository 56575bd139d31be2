import eslint from '@eslint/js';
import tseslint from 'typescript-eslint';

/**
 * The dependency order: cli → http → app → responses → mcp → chat → speech → {engine, protocol, net}. A folder may import itself
 * and what is named here, nothing else of ours. `__test__/imports-ts.test.ts` walks the tree and checks the same.
 */
const mayImport = {
  protocol: [],
  engine: [],
  net: [],
  speech: ['engine', 'protocol'],
  chat: ['engine', 'protocol', 'net'],
  mcp: ['chat', 'engine', 'protocol', 'net'],
  responses: ['mcp', 'chat', 'engine', 'protocol', 'net'],
  app: ['responses', 'mcp', 'chat', 'speech', 'engine', 'protocol', 'net'],
  http: ['app', 'responses', 'mcp', 'chat', 'speech', 'engine', 'protocol', 'net'],
  cli: ['http', 'app', 'responses', 'mcp', 'chat', 'speech', 'engine', 'protocol', 'net'],
};

const nativeBinding = {
  regex: '(^|/)\\.\\./index\\.js$|\\.node$',
  message: 'only addon.ts, native.ts, binding.ts and transcription.ts of ts/engine import the generated binding',
};

const restrictedPaths = Object.entries(mayImport).map(([folder, allowed]) => {
  const forbidden = Object.keys(mayImport).filter((other) => other !== folder && !allowed.includes(other));
  const patterns = forbidden.map((other) => ({
    regex: `^(\\.\\./)+${other}(/|$)`,
    message: `ts/${folder} may import only: ${[folder, ...allowed].join(', ')}`,
  }));
  return {
    files: [`ts/${folder}/**/*.ts`],
    ignores: ['ts/engine/addon.ts', 'ts/engine/native.ts', 'ts/engine/binding.ts', 'ts/engine/transcription.ts'],
    rules: { 'no-restricted-imports': ['error', { patterns: [...patterns, nativeBinding] }] },
  };
});

export default tseslint.config(
  { ignores: ['index.js', 'index.d.ts', 'dist/', 'target/', '.tsserve/', 'fixtures/', 'npm/'] },
  eslint.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/consistent-type-imports': ['error', { disallowTypeAnnotations: false }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': [
        'error',
        { ignoreArrowShorthand: true, ignoreVoidReturningFunctions: true },
      ],
      // A method that must be async for its interface need not await.
      '@typescript-eslint/require-await': 'off',
      'no-restricted-exports': ['error', { restrictDefaultExports: { direct: true, named: true, defaultFrom: true } }],
      eqeqeq: 'error',
      'no-console': 'error',
    },
  },
  ...restrictedPaths,
  {
    // The CLI and the bench talk to a terminal; they write to process.stdout themselves where the bytes matter.
    files: ['ts/cli/**/*.ts', 'bench/**/*.ts', 'examples/**/*.ts'],
    rules: { 'no-console': 'off' },
  },
  {
    files: ['__test__/**/*.ts'],
    rules: {
      // Chai's assertions are property reads, and tests look into JSON they know.
      '@typescript-eslint/no-unused-expressions': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-explicit-any': 'off',
      // Old names of the API are part of what is tested.
      '@typescript-eslint/no-deprecated': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
    },
  },
  {
    files: ['**/*.js', '**/*.mjs'],
    languageOptions: {
      globals: {
        process: 'readonly',
        console: 'readonly',
        URL: 'readonly',
        Buffer: 'readonly',
        setTimeout: 'readonly',
        clearTimeout: 'readonly',
        setInterval: 'readonly',
        clearInterval: 'readonly',
        AbortController: 'readonly',
        AbortSignal: 'readonly',
        fetch: 'readonly',
        performance: 'readonly',
        TextDecoder: 'readonly',
        TextEncoder: 'readonly',
      },
    },
  },
);
