/** A tool's result as the one string that the model and the wire's `output` take. */

import { isDeepStrictEqual } from 'node:util';

import type { CallToolResult, ContentBlock } from '@modelcontextprotocol/client';

/**
 * Texts, one below the other; bytes become a line with their type and size; links are named. Structured content is
 * appended as JSON unless one of the texts is that JSON already.
 * @param maxLength characters; what is cut off is counted in a last line
 */
export function resultText(result: CallToolResult, maxLength: number): string {
  const parts = result.content.map(blockText);
  if (result.structuredContent !== undefined && !result.content.some((block) => says(block, result.structuredContent)))
    parts.push(JSON.stringify(result.structuredContent));
  return cut(parts.join('\n'), maxLength);
}

function blockText(block: ContentBlock): string {
  switch (block.type) {
    case 'text':
      return block.text;
    case 'image':
    case 'audio':
      return `[${block.type}: ${block.mimeType}, ${bytesOf(block.data)} bytes]`;
    case 'resource_link':
      return `[resource ${block.name}: ${block.uri}${block.mimeType === undefined ? '' : `, ${block.mimeType}`}]`;
    case 'resource': {
      const { uri, mimeType } = block.resource;
      const name = `resource ${uri}${mimeType === undefined ? '' : `, ${mimeType}`}`;
      return 'text' in block.resource
        ? `[${name}]\n${block.resource.text}`
        : `[${name}, ${bytesOf(block.resource.blob)} bytes]`;
    }
  }
}

function says(block: ContentBlock, structured: unknown): boolean {
  if (block.type !== 'text' || !/^\s*[[{]/.test(block.text)) return false;
  try {
    return isDeepStrictEqual(JSON.parse(block.text), structured);
  } catch {
    return false;
  }
}

function bytesOf(base64: string): number {
  return Buffer.byteLength(base64, 'base64');
}

function cut(text: string, maxLength: number): string {
  if (text.length <= maxLength) return text;
  // Not through the middle of a surrogate pair.
  const end = /[\uD800-\uDBFF]/.test(text.charAt(maxLength - 1)) ? maxLength - 1 : maxLength;
  return `${text.slice(0, end)}\n[cut off: ${text.length - end} of ${text.length} characters]`;
}
