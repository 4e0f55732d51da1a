// The chat page: wires the parts together and holds what is on screen. Each part says in its own file what it does.

import { fillAnswer, requestFor } from "./answering.js";
import { ApiError } from "./api.js";
import { Composer } from "./composer.js";
import { Conversations, MOST_CONVERSATIONS, NO_SETTINGS, newId } from "./conversations.js";
import { askText, confirmAction, showKeys } from "./dialogs.js";
import { byId, el } from "./dom.js";
import { errorText, isAboutKey } from "./errors.js";
import { onLanguage, startWords, t } from "./i18n.js";
import { askForKey } from "./keys.js";
import { startLanguage } from "./language.js";
import { openMenu } from "./menu.js";
import { ModelChoice } from "./models.js";
import { announce, banner, toast } from "./notices.js";
import { PinnedScroll } from "./scroll.js";
import { SettingsPanel } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { keyring, preferences } from "./storage.js";
import { startTheme } from "./theme.js";
import { Thread } from "./thread.js";
import { download, fileName, fromJson, mergeInto, toJson, toMarkdown } from "./transfer.js";

/** How often a growing answer is kept, milliseconds; closing the page keeps it as well. */
const KEEP_EVERY = 2000;
const MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const UNFINISHED = Object.freeze({ message: "", code: "unfinished", status: 0, requestId: null });
const SUGGESTIONS = ["welcome.one", "welcome.two", "welcome.three", "welcome.four"];

await startWords();

const store = new Conversations();
/** Answers under way: conversation id -> AbortController. Several conversations may be answered at once. */
const running = new Map();
let current = null;
/** The page is being closed: its connections break, but nobody broke them. */
let leaving = false;

const thread = new Thread({ regenerate, edit: resend });
const composer = new Composer({ send, stop: () => running.get(current.id)?.abort(), editLast: () => thread.editLast() });
const sidebar = new Sidebar(store, { open, menu: conversationMenu, isBusy: (id) => running.has(id) });
const settings = new SettingsPanel(changeSettings);
const models = new ModelChoice((model) => changeSettings({ model }));
const scroll = new PinnedScroll(byId("scroller"), byId("thread"), (pinned) => {
  byId("to-bottom").hidden = pinned;
});

function open(id) {
  const found = store.get(id);
  if (!found) return startNew();
  healUnfinished(found);
  show(found);
  composer.focus();
}

function startNew() {
  show(store.create(lastSettings()));
  composer.focus();
}

function show(conversation) {
  current = conversation;
  thread.show(conversation);
  settings.show(conversation.settings);
  models.show(conversation.settings.model);
  sidebar.setCurrent(conversation.id);
  composer.setBusy(running.has(conversation.id));
  drawHead();
  scroll.pin();
  preferences.set("current", conversation.id);
}

function drawHead() {
  const isEmpty = current.messages.length === 0;
  byId("title").textContent = current.title || t("conversations.new");
  document.title = current.title ? `${current.title} · Pagoda` : "Pagoda";
  byId("welcome").hidden = !isEmpty;
  byId("conversation-menu").hidden = isEmpty;
}

/** An answer that was under way when the page was closed never got its end. */
function healUnfinished(conversation) {
  const last = conversation.messages.at(-1);
  if (last?.role === "assistant" && last.stats?.total == null && !last.error && !running.has(conversation.id)) {
    last.error = UNFINISHED;
  }
}

function lastSettings() {
  try {
    const kept = JSON.parse(preferences.get("settings") ?? "{}");
    return { ...NO_SETTINGS, model: kept.model ?? "" };
  } catch (error) {
    if (error instanceof SyntaxError) return NO_SETTINGS;
    throw error;
  }
}

function changeSettings(changed) {
  Object.assign(current.settings, changed);
  settings.mark(current.settings);
  if ("model" in changed) preferences.set("settings", JSON.stringify({ model: changed.model }));
  if (store.get(current.id)) store.save(current, { touch: false });
}

function send(text) {
  if (running.has(current.id)) return false;
  const question = { id: newId(), role: "user", content: text, created: Date.now() };
  current.messages.push(question);
  if (store.get(current.id)) store.save(current);
  else store.add(current);
  thread.append(question);
  answer(current);
  return true;
}

/** Ask again for the last answer. */
function regenerate(message) {
  if (running.has(current.id) || current.messages.at(-1) !== message) return;
  current.messages.pop();
  thread.show(current);
  answer(current);
  composer.focus();
}

/** Put `text` in the place of the question `message`; what followed belongs to the old one and goes. */
function resend(message, text) {
  if (running.has(current.id)) return;
  current.messages.splice(current.messages.indexOf(message));
  thread.show(current);
  send(text);
  composer.focus();
}

async function answer(conversation) {
  const message = { id: newId(), role: "assistant", content: "", created: Date.now(), model: models.chosen };
  const request = requestFor({ ...conversation, settings: { ...conversation.settings, model: message.model } });
  const controller = new AbortController();
  conversation.messages.push(message);
  running.set(conversation.id, controller);
  thread.append(message);
  composer.setBusy(true);
  drawHead();
  scroll.pin();
  announce(t("announce.started"));
  let kept = performance.now();
  await fillAnswer(message, request, controller.signal, () => {
    thread.grow(message);
    if (performance.now() - kept < KEEP_EVERY) return;
    kept = performance.now();
    store.save(conversation);
  });
  if (leaving && !message.stats.finish) message.error = UNFINISHED;
  running.delete(conversation.id);
  store.save(conversation);
  finish(conversation, message);
}

function finish(conversation, message) {
  thread.finish(message);
  if (conversation === current) {
    composer.setBusy(false);
    drawHead();
  }
  sidebar.draw();
  if (message.error) announce(`${t("error.title")}: ${errorText(message.error)}`);
  else announce(message.stopped ? t("message.stopped") : t("announce.answer", { text: thread.spoken(message) }));
  if (message.error && isAboutKey(message.error)) askForKey(message.error, loadModels, () => retryAfterKey(conversation, message));
  else refreshModels();
}

function retryAfterKey(conversation, message) {
  if (conversation === current) regenerate(message);
}

async function refreshModels() {
  const error = await loadModels();
  if (error && isAboutKey(error)) askForKey(error, loadModels, () => {});
}

/** Learn which models there are, or give the error; a page that cannot is still good for reading and exporting. */
async function loadModels() {
  const place = byId("banner");
  try {
    const count = await models.refresh();
    if (count === 0) banner(t("model.nothing"));
    else if (place.dataset.about === "models") banner("");
    place.dataset.about = count === 0 ? "models" : "";
    return null;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    banner(errorText(error), { label: t("error.retry"), run: refreshModels });
    place.dataset.about = "models";
    return error;
  }
}

function conversationMenu(button, conversation) {
  openMenu(button, [
    { label: t("conversation.rename"), run: () => rename(conversation) },
    { label: t("export.markdown"), run: () => exportAs("md", [conversation], conversation.title) },
    { label: t("export.json"), run: () => exportAs("json", [conversation], conversation.title) },
    null,
    { label: t("conversation.delete"), danger: true, run: () => remove(conversation) },
  ]);
}

function dataMenu(button) {
  const all = store.list();
  const some = all.length > 0;
  openMenu(button, [
    { label: t("import.json"), run: () => byId("import-file").click() },
    ...(some ? [{ label: t("export.all_json"), run: () => exportAs("json", all, "pagoda-conversations") }] : []),
    ...(some ? [{ label: t("export.all_markdown"), run: () => exportAs("md", all, "pagoda-conversations") }] : []),
    null,
    ...(keyring.get() ? [{ label: t("key.forget"), run: forgetKey }] : [{ label: t("key.enter"), run: () => askForKey(null, loadModels, () => {}) }]),
    ...(some ? [{ label: t("conversations.delete_all"), danger: true, run: removeAll }] : []),
  ]);
}

async function rename(conversation) {
  const title = await askText(t("conversation.rename"), t("conversation.name"), conversation.title);
  if (!title) return;
  store.rename(conversation, title);
  drawHead();
}

async function remove(conversation) {
  const title = conversation.title || t("conversations.untitled");
  if (!(await confirmAction(t("conversation.delete"), t("conversation.delete.text", { title }), t("dialog.delete")))) return;
  running.get(conversation.id)?.abort();
  store.remove(conversation.id);
  if (conversation === current) startNew();
}

async function removeAll() {
  const count = store.list().length;
  if (!(await confirmAction(t("conversations.delete_all"), t("conversations.delete_all.text", { count }), t("dialog.delete")))) return;
  for (const controller of running.values()) controller.abort();
  for (const { id } of store.list()) store.remove(id);
  startNew();
}

function exportAs(kind, conversations, title) {
  if (kind === "json") download(fileName(title, "json"), toJson(conversations), "application/json");
  else download(fileName(title, "md"), toMarkdown(conversations), "text/markdown");
}

async function importFiles(input) {
  for (const file of input.files) {
    try {
      const counts = mergeInto(store, fromJson(await file.text()));
      toast(t("import.done", counts), counts.unsaved ? "bad" : "info");
    } catch (error) {
      toast(`${file.name}: ${error.message}`, "bad");
    }
  }
  input.value = "";
}

function forgetKey() {
  keyring.set("", false);
  toast(t("key.forgotten"));
  refreshModels();
}

function shortcutList() {
  const mod = MAC ? "⌘" : "Ctrl";
  showKeys([
    ["Enter", t("shortcuts.send")],
    ["Shift+Enter", t("shortcuts.line")],
    ["Esc", t("shortcuts.stop")],
    ["↑", t("shortcuts.edit")],
    [`${mod}+Shift+O`, t("shortcuts.new")],
    [`${mod}+K`, t("shortcuts.search")],
    ["/", t("shortcuts.focus")],
    ["?", t("shortcuts.help")],
  ]);
}

function onKey(event) {
  if (event.defaultPrevented || event.isComposing || byId("dialog").open || byId("menu").matches(":popover-open")) return;
  const mod = event.ctrlKey || event.metaKey;
  const isTyping = event.target.matches("input, textarea, select");
  if (event.key === "Escape") running.get(current.id)?.abort();
  else if (mod && event.shiftKey && event.code === "KeyO") run(event, startNew);
  else if (mod && !event.shiftKey && event.code === "KeyK") run(event, () => sidebar.focusSearch());
  else if (!isTyping && !mod && event.key === "/") run(event, () => composer.focus());
  else if (!isTyping && !mod && event.key === "?") run(event, shortcutList);
}

function run(event, action) {
  event.preventDefault();
  action();
}

function drawSuggestions() {
  byId("suggestions").replaceChildren(
    ...SUGGESTIONS.map((key) => el("button", { type: "button", onclick: () => suggest(t(key)) }, t(key))),
  );
}

function suggest(text) {
  composer.draft = text;
  composer.focus();
}

function listen() {
  byId("new-chat").addEventListener("click", startNew);
  byId("conversation-menu").addEventListener("click", (event) => conversationMenu(event.currentTarget, current));
  byId("data-menu").addEventListener("click", (event) => dataMenu(event.currentTarget));
  byId("import-file").addEventListener("change", (event) => importFiles(event.target));
  byId("shortcuts").addEventListener("click", shortcutList);
  byId("to-bottom").addEventListener("click", () => scroll.pin());
  document.addEventListener("keydown", onKey);
  window.addEventListener("beforeunload", () => {
    leaving = true;
  });
  window.addEventListener("pageshow", () => {
    leaving = false;
  });
  window.addEventListener("pagehide", () => {
    for (const id of running.keys()) if (store.get(id)) store.save(store.get(id));
  });
  store.addEventListener("unsaved", ({ detail }) => banner(t(`storage.${detail}`, { count: MOST_CONVERSATIONS })));
  store.addEventListener("outside", ({ detail: id }) => {
    if (id === current.id && !running.has(id) && store.get(id)) show(store.get(id));
  });
  onLanguage(() => {
    drawSuggestions();
    thread.show(current);
    drawHead();
  });
}

listen();
startTheme(byId("theme"));
startLanguage(byId("language"));
drawSuggestions();
open(preferences.get("current"));
refreshModels();
