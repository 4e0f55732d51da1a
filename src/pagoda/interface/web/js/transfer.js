// Conversations as files: JSON (which can be imported again) and Markdown (for people).

import { cleanConversation, newId } from "./conversations.js";
import { locale, t } from "./i18n.js";

const FORMAT = "pagoda-conversations";

export function toJson(conversations) {
  return `${JSON.stringify({ format: FORMAT, version: 1, exported: new Date().toISOString(), conversations }, null, 2)}\n`;
}

export function toMarkdown(conversations) {
  return `${conversations.map(markdownOf).join("\n\n---\n\n")}\n`;
}

function markdownOf(conversation) {
  const date = new Date(conversation.created).toLocaleString(locale());
  const parts = [`# ${conversation.title || t("conversations.untitled")}`, `*${date}*`];
  if (conversation.settings.system) parts.push(`**${t("settings.system")}:**\n\n${quote(conversation.settings.system)}`);
  for (const message of conversation.messages) {
    const who = message.role === "user" ? t("message.you") : message.model || t("message.assistant");
    parts.push(`## ${who}`);
    if (message.content) parts.push(message.content);
    if (message.error) parts.push(quote(`${t("error.title")}: ${message.error.message || message.error.code}`));
  }
  return parts.join("\n\n");
}

const quote = (text) => text.split("\n").map((line) => `> ${line}`).join("\n");

/** The conversations in a file's text; throws Error with a sentence for the user. */
export function fromJson(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error(t("import.not_json"));
  }
  if (file?.format !== FORMAT || !Array.isArray(file.conversations)) throw new Error(t("import.not_ours"));
  const clean = file.conversations.map(cleanConversation);
  if (clean.includes(null)) throw new Error(t("import.broken", { number: clean.indexOf(null) + 1 }));
  return clean;
}

/** Add `imported` to `store`: what is there already is left alone, what differs comes in as a copy. */
export function mergeInto(store, imported) {
  const counts = { added: 0, same: 0, unsaved: 0 };
  for (const conversation of imported) {
    const own = store.get(conversation.id);
    // Cleaned, both have their fields in the same order.
    if (own && JSON.stringify(cleanConversation(own).messages) === JSON.stringify(conversation.messages)) {
      counts.same += 1;
      continue;
    }
    const { updated } = conversation;
    if (own) conversation.id = newId();
    const kept = store.add(conversation);
    conversation.updated = updated;
    if (kept) store.save(conversation, { touch: false });
    counts[kept ? "added" : "unsaved"] += 1;
  }
  return counts;
}

/** Offer `text` as a download called `name`. */
export function download(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** A file name from a title; letters of any script stay. */
export function fileName(title, ending) {
  const words = title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 60);
  return `${words || "pagoda"}.${ending}`;
}
