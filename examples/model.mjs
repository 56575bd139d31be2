/** Which model the examples use: the first argument, else TSSERVE_MODEL, else a small one from the hub. */
export const model = process.argv[2] ?? process.env.TSSERVE_MODEL ?? 'HuggingFaceTB/SmolLM2-135M-Instruct';
