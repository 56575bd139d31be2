/** Questions to try a model with: `!example NAME`. */

export const EXAMPLES: Readonly<Record<string, string>> = {
  llama: 'Write a short poem about a llama that lives at a lighthouse.',
  code: 'Write a Python function that returns the longest common prefix of a list of strings, with two tests.',
  helicopter: 'A helicopter flies 120 km north, then 90 km west. How far is it from where it started? Show your steps.',
  numbers: 'What is 17 times 23, minus 91, divided by 3? Show your steps.',
  birds: 'Five birds sit on a fence. A cat scares two away, then three more come. How many are there, and why?',
  socks: 'A drawer holds ten black and ten white socks. How many must I take in the dark to be sure of a pair?',
  numbers2: 'Sort these from smallest to largest: 9.9, 9.11, 9.09, 10.01, 9.101.',
};
