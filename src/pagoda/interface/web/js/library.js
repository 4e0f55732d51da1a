// Collections of documents as the knowledge page uses them: Pagoda's API below api/v1/rag.

import { ApiError, call, guarded, parse } from "./api.js";
import { frames } from "./stream.js";

const ROOT = "api/v1/rag";
const JSON_TYPE = { "Content-Type": "application/json" };

const path = (...parts) => [ROOT, "collections", ...parts.map(encodeURIComponent)].join("/");
const json = async (place, options = {}) => (await call(place, options)).json();

export const collections = async () => (await json(path())).data;
export const documents = async (collection) => (await json(`${path(collection)}/documents`)).data;

/** A collection of that name, made if there is none. */
export const ensureCollection = (name) => json(path(name), { method: "PUT", headers: JSON_TYPE, body: "{}" });
export const deleteCollection = (name) => json(path(name), { method: "DELETE" });
export const deleteDocument = (collection, id) => json(`${path(collection)}/documents/${encodeURIComponent(id)}`, { method: "DELETE" });

/** What became of the files: `{ added, changed, unchanged, failed }`. */
export function upload(collection, files) {
  const body = new FormData();
  for (const file of files) body.append("file", file, file.webkitRelativePath || file.name);
  return json(`${path(collection)}/documents`, { method: "POST", body });
}

/** A document with the characters around a passage: `{ title, source, start, end, length, text }`. */
export function documentText(collection, id, start, end) {
  const place = `${path(collection)}/documents/${encodeURIComponent(id)}`;
  return json(`${place}?start=${Math.max(0, start)}&end=${end}`);
}

/** What the collection's documents say to each claim of a text: `{ claim, verdict, evidence }`. */
export async function checkClaims(collection, claims, question) {
  const body = JSON.stringify({ collection, claims, question });
  return (await json("api/v1/trust/check", { method: "POST", headers: JSON_TYPE, body })).claims;
}

/** Ask a collection. Yields what the server says: objects with the types `sources`, `piece` and `answer`. */
export async function* ask(question, signal) {
  const headers = { ...JSON_TYPE, Accept: "text/event-stream" };
  const body = JSON.stringify({ ...question, stream: true });
  const response = await call(`${ROOT}/ask`, { method: "POST", headers, body, signal });
  const requestId = response.headers.get("X-Request-Id");
  for await (const data of guarded(frames(response.body), signal, requestId)) {
    const said = parse(data, requestId);
    if (said.error) throw new ApiError(String(said.error.message), { code: said.error.code, requestId });
    yield said;
    if (said.type === "answer") return;
  }
  throw new ApiError("", { code: "stream_cut", requestId });
}
