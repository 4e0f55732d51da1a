// Pagoda's HTTP API as the page uses it. Addresses are relative to the page, so that a URL sub-path works.

import { keyring } from "./storage.js";
import { frames } from "./stream.js";

const base = new URL(".", document.baseURI);

/** A request that failed, with what a report of it needs. */
export class ApiError extends Error {
  constructor(message, { code = null, status = 0, requestId = null } = {}) {
    super(message);
    this.code = code;
    this.status = status;
    this.requestId = requestId;
  }
}

/** The models that can chat. */
export async function chatModels() {
  const response = await call("v1/models", {});
  const list = (await response.json()).data ?? [];
  return list
    .filter((model) => (model.pagoda?.task ?? "chat") === "chat")
    .map((model) => ({ id: model.id, state: model.pagoda?.state ?? "ready", default: model.pagoda?.default === true }));
}

/**
 * Stream one answer. Yields `{ text }`, `{ reasoning }`, `{ finish }`, `{ usage }` and `{ requestId }` pieces;
 * throws ApiError when the server refuses, sends an error frame, or stops before the end.
 */
export async function* streamChat(request, signal) {
  const body = JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } });
  const headers = { "Content-Type": "application/json", Accept: "text/event-stream" };
  const response = await call("v1/chat/completions", { method: "POST", headers, body, signal });
  const requestId = response.headers.get("X-Request-Id");
  yield { requestId };
  for await (const data of guarded(frames(response.body), signal, requestId)) {
    if (data === "[DONE]") return;
    yield* pieces(parse(data, requestId), requestId);
  }
  throw new ApiError("", { code: "stream_cut", requestId });
}

function* pieces(chunk, requestId) {
  if (chunk.error) {
    const { message = "", code = null, request_id: own = null } = chunk.error;
    throw new ApiError(String(message), { code, requestId: own ?? requestId });
  }
  for (const choice of chunk.choices ?? []) {
    const delta = choice.delta ?? {};
    const reasoning = delta.reasoning_content ?? delta.reasoning;
    if (reasoning) yield { reasoning };
    if (delta.content) yield { text: delta.content };
    if (choice.finish_reason) yield { finish: choice.finish_reason };
  }
  if (chunk.usage) yield { usage: chunk.usage };
}

/** The payload of a frame. */
export function parse(data, requestId) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ApiError("", { code: "bad_frame", requestId });
  }
}

/** A connection that breaks in mid-stream is an error like any other; one that the user stopped is not. */
export async function* guarded(source, signal, requestId) {
  try {
    yield* source;
  } catch (error) {
    if (signal?.aborted || !(error instanceof TypeError)) throw error;
    throw new ApiError("", { code: "stream_cut", requestId });
  }
}

/** A response that is not an error; its headers carry the key. */
export async function call(path, options) {
  const key = keyring.get();
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(new URL(path, base), { ...options, headers });
  } catch (error) {
    if (options.signal?.aborted || !(error instanceof TypeError)) throw error;
    throw new ApiError("", { code: "unreachable" });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const requestId = response.headers.get("X-Request-Id");
  let detail = {};
  try {
    detail = (await response.json())?.error ?? {};
  } catch {
    // A proxy's HTML page: the status says what there is to say.
  }
  const status = response.status;
  return new ApiError(detail.message ?? "", { code: detail.code ?? "http", status, requestId: requestId ?? detail.request_id });
}
