/** Segments as subtitles: SubRip (srt) and WebVTT (vtt). */

export interface Cue {
  /** Seconds. */
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** Numbered cues, `00:00:01,500 --> 00:00:02,000`. */
export function toSrt(cues: readonly Cue[]): string {
  return spoken(cues)
    .map(
      ({ start, end, text }, index) =>
        `${index + 1}\n${clock(start, ',')} --> ${clock(end, ',')}\n${unarrowed(text)}\n`,
    )
    .join('\n');
}

/** A header and cues, `00:00:01.500 --> 00:00:02.000`. */
export function toVtt(cues: readonly Cue[]): string {
  const blocks = spoken(cues).map(
    ({ start, end, text }) => `${clock(start, '.')} --> ${clock(end, '.')}\n${escaped(text)}\n`,
  );
  return ['WEBVTT\n', ...blocks].join('\n');
}

/** `hh:mm:ss` and milliseconds behind `point`; hours may have more digits. */
export function clock(seconds: number, point: ',' | '.'): string {
  const all = Math.max(0, Math.round(seconds * 1000));
  const two = (value: number): string => String(value).padStart(2, '0');
  const whole = Math.floor(all / 1000);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return `${two(hours)}:${two(minutes)}:${two(whole % 60)}${point}${String(all % 1000).padStart(3, '0')}`;
}

/** Cues that say something, each on lines that no reader takes for the cue's end. */
function spoken(cues: readonly Cue[]): Cue[] {
  return cues.flatMap((cue) => {
    const text = cue.text.trim().replace(/\s*[\r\n\u2028\u2029]\s*/g, '\n');
    return text === '' ? [] : [{ ...cue, text }];
  });
}

/** SubRip knows no escapes: the arrow of its time lines is changed, as Whisper's own writer does. */
function unarrowed(text: string): string {
  return text.replaceAll('-->', '->');
}

/** WebVTT's text holds markup: the three characters that make it and its arrow are escaped. */
function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
