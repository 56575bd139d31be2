/** What can go wrong while a template is parsed or rendered. */

/** The template itself refused the conversation: `raise_exception('…')`. */
export class TemplateRaised extends Error {
  override readonly name = 'TemplateRaised';
}

/** The source is not a template this engine can read. */
export class TemplateSyntaxError extends Error {
  override readonly name = 'TemplateSyntaxError';
}

/** The same place where Python's Jinja would fail: a missing value used, types that do not go together. */
export class TemplateRuntimeError extends Error {
  override readonly name = 'TemplateRuntimeError';
}
