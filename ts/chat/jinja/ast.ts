/**
 * The nodes that `parse` of @huggingface/jinja returns. The package does not export their types, so they are mirrored
 * here as a discriminated union; `parse.ts` is the one place that vouches for them.
 */

export interface Program {
  readonly type: 'Program';
  readonly body: readonly Node[];
}

export interface Identifier {
  readonly type: 'Identifier';
  readonly value: string;
}

export interface TupleLiteral {
  readonly type: 'TupleLiteral';
  readonly value: readonly Node[];
}

export interface KeywordArgument {
  readonly type: 'KeywordArgumentExpression';
  readonly key: Identifier;
  readonly value: Node;
}

export interface CallExpression {
  readonly type: 'CallExpression';
  readonly callee: Node;
  readonly args: readonly Node[];
}

export interface SliceExpression {
  readonly type: 'SliceExpression';
  readonly start?: Node;
  readonly stop?: Node;
  readonly step?: Node;
}

export interface SelectExpression {
  readonly type: 'SelectExpression';
  readonly lhs: Node;
  readonly test: Node;
}

export interface For {
  readonly type: 'For';
  readonly loopvar: Node;
  readonly iterable: Node;
  readonly body: readonly Node[];
  readonly defaultBlock: readonly Node[];
}

export interface SetStatement {
  readonly type: 'Set';
  readonly assignee: Node;
  readonly value: Node | null;
  readonly body: readonly Node[];
}

export type Parameter = Identifier | KeywordArgument;
export type FilterNode = Identifier | CallExpression;

export interface Macro {
  readonly type: 'Macro';
  readonly name: Identifier;
  readonly args: readonly Parameter[];
  readonly body: readonly Node[];
}

export interface CallStatement {
  readonly type: 'CallStatement';
  readonly call: CallExpression;
  readonly callerArgs: readonly Parameter[] | null;
  readonly body: readonly Node[];
}

export interface MemberExpression {
  readonly type: 'MemberExpression';
  readonly object: Node;
  readonly property: Node;
  readonly computed: boolean;
}

export interface BinaryExpression {
  readonly type: 'BinaryExpression';
  readonly operator: { readonly value: string };
  readonly left: Node;
  readonly right: Node;
}

export interface TestExpression {
  readonly type: 'TestExpression';
  readonly operand: Node;
  readonly negate: boolean;
  readonly test: Identifier;
}

export type Node =
  | Program
  | Identifier
  | TupleLiteral
  | KeywordArgument
  | CallExpression
  | SliceExpression
  | SelectExpression
  | For
  | SetStatement
  | Macro
  | CallStatement
  | MemberExpression
  | BinaryExpression
  | TestExpression
  | { readonly type: 'Comment' | 'Break' | 'Continue' }
  | { readonly type: 'IntegerLiteral' | 'FloatLiteral'; readonly value: number }
  | { readonly type: 'StringLiteral'; readonly value: string }
  | { readonly type: 'ArrayLiteral'; readonly value: readonly Node[] }
  | { readonly type: 'ObjectLiteral'; readonly value: ReadonlyMap<Node, Node> }
  | { readonly type: 'If'; readonly test: Node; readonly body: readonly Node[]; readonly alternate: readonly Node[] }
  | { readonly type: 'Ternary'; readonly condition: Node; readonly trueExpr: Node; readonly falseExpr: Node }
  | { readonly type: 'UnaryExpression'; readonly operator: { readonly value: string }; readonly argument: Node }
  | { readonly type: 'FilterExpression'; readonly operand: Node; readonly filter: FilterNode }
  | { readonly type: 'FilterStatement'; readonly filter: FilterNode; readonly body: readonly Node[] }
  | { readonly type: 'SpreadExpression' | 'KeywordSpreadExpression'; readonly argument: Node };
