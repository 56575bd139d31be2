/** How a model family writes reasoning and tool calls: data that the output parser and the grammars interpret. */

/** Text between two markers is reasoning. */
export interface ReasoningSyntax {
  readonly open: string;
  readonly close: string;
}

/**
 * How one call is written. Whitespace between the parts is the model's affair when it is read; as written here it goes
 * into grammars.
 */
export type CallSyntax =
  /** `{"name": "f", "arguments": {…}}`, alone or in a list. Other keys are skipped. */
  | {
      readonly kind: 'json';
      readonly name: string;
      readonly arguments: string;
      /** Several calls are the elements of one list. */
      readonly list?: boolean;
    }
  /** The name as text, then the arguments as JSON: `f[ARGS]{…}`. */
  | {
      readonly kind: 'named';
      readonly before: string;
      /** Ends the name. */
      readonly between: string;
      /** Between the name and `between` there may be this and an id: `f[CALL_ID]abc[ARGS]{…}`. */
      readonly id?: string;
      readonly after: string;
    }
  /** Each argument between tags of its own. Values are text: the tool's schema says what they are. */
  | {
      readonly kind: 'tagged';
      readonly nameOpen: string;
      /** Ends the name. */
      readonly nameClose: string;
      readonly keyOpen: string;
      readonly keyClose: string;
      /** Between key and value; may be empty. */
      readonly valueOpen: string;
      readonly valueClose: string;
      /** Ends the call; empty: the section's end does. */
      readonly close: string;
      /** A line break after the key and one before `valueClose` are not part of the value. */
      readonly lines: boolean;
    }
  /** `call:f{key:value,…}`, keys bare, strings between marks of their own. */
  | { readonly kind: 'object'; readonly before: string; readonly quote: string }
  /** `f(key="value", other=1)`, Python's literals. */
  | { readonly kind: 'python' };

export interface ToolSyntax {
  /** Each opens a section of calls. The first is what grammars write and what switches them on. */
  readonly open: readonly string[];
  /** These open a section only where the message begins. */
  readonly openAtStart?: readonly string[];
  /** The message may begin with a call of an offered tool without any marker, in these syntaxes. */
  readonly bare?: readonly CallSyntax['kind'][];
  readonly close?: string;
  /** The first is what grammars write; the others are read as well. */
  readonly calls: readonly [CallSyntax, ...CallSyntax[]];
  /** Around the calls of a section, for grammars. */
  readonly padding?: string;
  /** How several calls are written: each in a section of its own (default), or one after the other in one section. */
  readonly several?: { readonly inSection: true; readonly separator: string } | { readonly separator: string };
}

export interface ChatFormat {
  readonly name: string;
  /** Chat templates that hold all texts of one of these lists speak this format. */
  readonly signs: readonly (readonly string[])[];
  /** For templates that say nothing about it: families that speak it all the same. */
  readonly families?: readonly string[];
  /**
   * Texts that are tokens of their own where the vocabulary has them. Where one is a special token only that token
   * counts, never its text.
   */
  readonly tokens: readonly string[];
  readonly reasoning?: ReasoningSyntax;
  /** The reasoning tags count only if the template names them: some models of the family do not think. */
  readonly reasoningByTemplate?: boolean;
  readonly tools?: ToolSyntax;
  /** OpenAI's harmony: every message has a channel and perhaps a recipient. */
  readonly channels?: boolean;
}
