// Server-sent events from raw bytes. Frames may be cut anywhere: inside a UTF-8 character, between CR and LF.

export class FrameDecoder {
  #text = new TextDecoder("utf-8");
  #line = "";
  #data = [];
  #afterCr = false;

  /** The `data` of every frame that `bytes` completes. Comments (keep-alive) and other fields are skipped. */
  push(bytes) {
    return this.#feed(this.#text.decode(bytes, { stream: true }));
  }

  /** The last frame of a stream that ended without its blank line. */
  end() {
    const frames = this.#feed(this.#text.decode());
    if (this.#line) this.#endLine(frames);
    this.#endFrame(frames);
    return frames;
  }

  #feed(text) {
    const frames = [];
    let start = 0;
    if (this.#afterCr && text.length > 0) {
      if (text[0] === "\n") start = 1; // the second half of a CRLF cut in two
      this.#afterCr = false;
    }
    const ending = /\r\n|\n|\r/g;
    ending.lastIndex = start;
    for (let match = ending.exec(text); match; match = ending.exec(text)) {
      this.#line += text.slice(start, match.index);
      this.#endLine(frames);
      start = ending.lastIndex;
      if (match[0] === "\r" && start === text.length) this.#afterCr = true;
    }
    this.#line += text.slice(start);
    return frames;
  }

  #endLine(frames) {
    const line = this.#line;
    this.#line = "";
    if (line === "") {
      this.#endFrame(frames);
    } else if (line === "data") {
      this.#data.push("");
    } else if (line.startsWith("data:")) {
      this.#data.push(line.slice(line[5] === " " ? 6 : 5));
    }
  }

  #endFrame(frames) {
    if (this.#data.length) frames.push(this.#data.join("\n"));
    this.#data = [];
  }
}

/** The frames of a response's body, as they arrive. */
export async function* frames(body) {
  const reader = body.getReader();
  const decoder = new FrameDecoder();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      yield* done ? decoder.end() : decoder.push(value);
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {}); // already closed or aborted: nothing is left to release
  }
}
