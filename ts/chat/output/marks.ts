/**
 * Special tokens inside the text that is parsed: each is one character that no text can hold, so that all syntax can be
 * matched as strings and still no text passes for a special token.
 */

import type { TextPiece } from '../../engine/types.js';
import type { ChatFormat, ReasoningSyntax, ToolSyntax } from '../formats/index.js';
import type { FormatToken } from '../formats/vocabulary.js';

/** Unicode's noncharacters: "for internal use", never for interchange. */
const FIRST_MARK = 0xfdd0;
const LAST_MARK = 0xfdef;
const NONCHARACTERS = /[\ufdd0-\ufdef]/g;

/** Any special token that the format does not name. */
const OTHER = String.fromCharCode(LAST_MARK);

/** A format for one vocabulary. */
export interface CompiledFormat {
  readonly name: string;
  readonly channels: boolean;
  readonly reasoning: ReasoningSyntax | undefined;
  readonly tools: ToolSyntax | undefined;
  /** Tokens of the format that are special here → their characters. */
  readonly marks: ReadonlyMap<string, string>;
  /** Tokens of the format, special or not → their ids. */
  readonly ids: ReadonlyMap<string, number>;
  /** As declared, for what is shown to others. */
  readonly source: ChatFormat;
}

/** @param vocabulary the format's tokens that are tokens of their own there */
export function compileFormat(format: ChatFormat, vocabulary: ReadonlyMap<string, FormatToken>): CompiledFormat {
  const tokens = format.tokens.filter((token) => vocabulary.get(token)?.special === true);
  const marks = new Map(tokens.map((token, index) => [token, String.fromCharCode(FIRST_MARK + index)]));
  const marked = <T>(value: T): T => mapStrings(value, (text) => withMarks(text, marks));
  return {
    name: format.name,
    channels: format.channels ?? false,
    reasoning: marked(format.reasoning),
    tools: marked(format.tools),
    marks,
    ids: new Map([...vocabulary].map(([token, { id }]) => [token, id])),
    source: format,
  };
}

/** Text of the syntax with its special tokens as marks. */
export function withMarks(text: string, marks: ReadonlyMap<string, string>): string {
  let out = text;
  for (const [token, mark] of marks) out = out.replaceAll(token, mark);
  return out;
}

/** What the model wrote as text to be parsed. */
export function encodePiece(piece: TextPiece, marks: ReadonlyMap<string, string>): string {
  if (piece.special !== undefined) return marks.get(piece.text) ?? OTHER;
  return piece.text.replace(NONCHARACTERS, '\ufffd');
}

/** The text without its marks: special tokens are not text. */
export function withoutMarks(text: string): string {
  return text.replace(NONCHARACTERS, '');
}

export function isMark(character: string): boolean {
  return character >= '\ufdd0' && character <= '\ufdef';
}

function mapStrings<T>(value: T, map: (text: string) => string): T {
  const visit = (inner: unknown): unknown => {
    if (typeof inner === 'string') return map(inner);
    if (Array.isArray(inner)) return inner.map(visit);
    if (typeof inner !== 'object' || inner === null) return inner;
    return Object.fromEntries(Object.entries(inner).map(([key, item]) => [key, visit(item)]));
  };
  return visit(value) as T;
}
