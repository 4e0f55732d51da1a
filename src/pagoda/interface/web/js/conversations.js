// The user's conversations: kept in this browser only, one storage entry each, so that tabs do not overwrite each other.
//
// A conversation: { id, title, named, created, updated, settings: { model, system, temperature, length }, messages }.
// A message: { id, role: "user" | "assistant", content, created } and, for answers, reasoning, model, requestId,
// stats, error, stopped.

import { localStorageOrNull, write } from "./storage.js";

const PREFIX = "pagoda.conversation.";
export const MOST_CONVERSATIONS = 200;

export const newId = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
};

export const NO_SETTINGS = Object.freeze({ model: "", system: "", temperature: null, length: null });

/** Events: `list` (titles or order changed), `unsaved` (detail: "full" | "many" | "blocked"), `saved`, `outside` (detail: id). */
export class Conversations extends EventTarget {
  #all = new Map();
  #store = localStorageOrNull();

  constructor() {
    super();
    for (const key of this.#keys()) this.#load(key);
    window.addEventListener("storage", (event) => this.#changedOutside(event));
  }

  /** All conversations, the latest first; those whose words contain `query` if it is given. */
  list(query = "") {
    const wanted = query.trim().toLocaleLowerCase();
    const all = [...this.#all.values()].sort((a, b) => b.updated - a.updated);
    if (!wanted) return all;
    return all.filter((item) =>
      [item.title, ...item.messages.map((message) => message.content)].some((text) => text.toLocaleLowerCase().includes(wanted)),
    );
  }

  get(id) {
    return this.#all.get(id) ?? null;
  }

  /** A conversation that is listed and kept from its first message on. */
  create(settings = NO_SETTINGS) {
    const now = Date.now();
    return { id: newId(), title: "", named: false, created: now, updated: now, settings: { ...settings }, messages: [] };
  }

  add(conversation) {
    this.#all.set(conversation.id, conversation);
    return this.save(conversation);
  }

  /** Keep `conversation` as it is now. False, and an `unsaved` event, if the browser could not. */
  save(conversation, { touch = true } = {}) {
    if (!this.#all.has(conversation.id)) return false; // deleted meanwhile, or still without a message
    if (touch) conversation.updated = Date.now();
    if (!conversation.named) conversation.title = titleOf(conversation);
    this.dispatchEvent(new Event("list"));
    return this.#write(conversation);
  }

  rename(conversation, title) {
    conversation.title = title;
    conversation.named = true;
    return this.save(conversation, { touch: false });
  }

  remove(id) {
    this.#all.delete(id);
    write(this.#store, PREFIX + id, null);
    this.dispatchEvent(new Event("list"));
  }

  #write(conversation) {
    const key = PREFIX + conversation.id;
    const isNew = this.#store !== null && this.#store.getItem(key) === null;
    if (isNew && this.#keys().length >= MOST_CONVERSATIONS) return this.#unsaved("many");
    if (!this.#store) return this.#unsaved("blocked");
    if (!write(this.#store, key, JSON.stringify(conversation))) return this.#unsaved("full");
    this.dispatchEvent(new Event("saved"));
    return true;
  }

  #unsaved(detail) {
    this.dispatchEvent(new CustomEvent("unsaved", { detail }));
    return false;
  }

  #keys() {
    return this.#store ? Object.keys(this.#store).filter((key) => key.startsWith(PREFIX)) : [];
  }

  #load(key) {
    const conversation = parseConversation(this.#store.getItem(key));
    if (conversation) this.#all.set(conversation.id, conversation);
    return conversation;
  }

  #changedOutside({ key, newValue, storageArea }) {
    if (storageArea !== this.#store || !key?.startsWith(PREFIX)) return;
    const id = key.slice(PREFIX.length);
    if (newValue === null) this.#all.delete(id);
    else this.#load(key);
    this.dispatchEvent(new Event("list"));
    this.dispatchEvent(new CustomEvent("outside", { detail: id }));
  }
}

function titleOf(conversation) {
  const first = conversation.messages.find((message) => message.role === "user")?.content ?? "";
  const line = first.trim().split("\n", 1)[0];
  const letters = Array.from(line);
  return letters.length > 60 ? `${letters.slice(0, 59).join("")}…` : line;
}

function parseConversation(text) {
  try {
    return cleanConversation(JSON.parse(text));
  } catch (error) {
    if (error instanceof SyntaxError) return null; // not ours, or cut short by a crash: left where it is
    throw error;
  }
}

const isText = (value) => typeof value === "string";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const numberIn = (value, low, high) => (isNumber(value) && value >= low && value <= high ? value : null);

/** A conversation with exactly the fields this page knows, or null: storage and imported files are not trusted. */
export function cleanConversation(raw) {
  if (typeof raw !== "object" || raw === null || !Array.isArray(raw.messages)) return null;
  const messages = raw.messages.map(cleanMessage);
  if (messages.includes(null) || messages.length === 0) return null;
  const { settings = {} } = raw;
  const now = Date.now();
  return {
    id: isText(raw.id) && /^[\w-]{1,64}$/.test(raw.id) ? raw.id : newId(),
    title: isText(raw.title) ? raw.title.slice(0, 200) : "",
    named: raw.named === true,
    created: isNumber(raw.created) ? raw.created : now,
    updated: isNumber(raw.updated) ? raw.updated : now,
    settings: {
      model: isText(settings?.model) ? settings.model : "",
      system: isText(settings?.system) ? settings.system : "",
      temperature: numberIn(settings?.temperature, 0, 2),
      length: numberIn(settings?.length, 1, 131072),
    },
    messages,
  };
}

function cleanMessage(raw) {
  if (typeof raw !== "object" || raw === null || !isText(raw.content)) return null;
  if (raw.role !== "user" && raw.role !== "assistant") return null;
  const message = {
    id: isText(raw.id) && /^[\w-]{1,64}$/.test(raw.id) ? raw.id : newId(),
    role: raw.role,
    content: raw.content,
    created: isNumber(raw.created) ? raw.created : Date.now(),
  };
  if (raw.role === "user") return message;
  if (isText(raw.reasoning) && raw.reasoning) message.reasoning = raw.reasoning;
  if (isText(raw.model)) message.model = raw.model;
  if (isText(raw.requestId)) message.requestId = raw.requestId;
  if (raw.stopped === true) message.stopped = true;
  if (raw.stats && typeof raw.stats === "object") message.stats = cleanStats(raw.stats);
  if (raw.error && typeof raw.error === "object") message.error = cleanError(raw.error);
  return message;
}

const cleanStats = (raw) => ({
  prompt: numberIn(raw.prompt, 0, Infinity),
  completion: numberIn(raw.completion, 0, Infinity),
  first: numberIn(raw.first, 0, Infinity),
  total: numberIn(raw.total, 0, Infinity),
  finish: isText(raw.finish) ? raw.finish : null,
});

const cleanError = (raw) => ({
  message: isText(raw.message) ? raw.message : "",
  code: isText(raw.code) ? raw.code : null,
  status: isNumber(raw.status) ? raw.status : 0,
  requestId: isText(raw.requestId) ? raw.requestId : null,
});
