// The knowledge page: collections of documents, questions to one of them, and the passages that answers rest on.

import { ApiError } from "./api.js";
import { Answers } from "./answers.js";
import { Composer } from "./composer.js";
import { askText, confirmAction } from "./dialogs.js";
import { byId, el, icon } from "./dom.js";
import { Drawer } from "./drawer.js";
import { errorText, isAboutKey } from "./errors.js";
import { onLanguage, startWords, t } from "./i18n.js";
import { askForKey } from "./keys.js";
import { startLanguage } from "./language.js";
import * as library from "./library.js";
import { ModelChoice } from "./models.js";
import { announce, banner, toast } from "./notices.js";
import { Reader } from "./reader.js";
import { preferences } from "./storage.js";
import { startTheme } from "./theme.js";

/** Turns of the conversation that a follow-up question is understood by. */
const MOST_TURNS = 6;

await startWords();

const drawer = new Drawer();
const models = new ModelChoice(() => {});
const reader = new Reader(() => pointTo(null));
const answers = new Answers(openPassage);
const composer = new Composer({ send, stop: () => running?.abort(), editLast: () => {} });
let shelves = [];
let current = null;
let turns = [];
let running = null;

/** Do what may fail, and tell whether it went. Where a key would help one is asked for; it may see other collections. */
async function attempt(work, retry = () => attempt(work)) {
  let error = await tried(work, retry);
  const again = async () => {
    error = await tried(() => load().then(work), retry);
    return error;
  };
  if (error && isAboutKey(error)) await askForKey(error, again, drawShelves);
  return !error;
}

/** Do what may fail, and give the error; the banner says it, unless a key would help. */
async function tried(work, retry) {
  try {
    await work();
    banner("");
    return null;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (!isAboutKey(error)) banner(errorText(error), { label: t("error.retry"), run: retry });
    return error;
  }
}

/** Learn which models and collections there are. */
async function load() {
  await models.refresh();
  shelves = await library.collections();
  if (current && !isKnown(current)) leave();
}

const isKnown = (name) => shelves.some((each) => each.name === name);

async function refresh() {
  const went = await attempt(load, start);
  drawShelves();
  return went;
}

async function start() {
  if (!(await refresh())) return;
  const wanted = placeInAddress();
  const first = [wanted?.collection, current, preferences.get("collection"), shelves[0]?.name].find(isKnown);
  if (first) await choose(first);
  if (wanted) await follow(wanted);
}

async function choose(name) {
  if (name !== current) leave();
  current = name;
  preferences.set("collection", name);
  if (drawer.isOpen()) drawer.slide(false);
  drawShelves();
  await drawDocuments();
}

function startOver() {
  running?.abort();
  turns = [];
  answers.clear();
  closePassage();
  byId("welcome").hidden = false;
}

/** Show nothing of the collection that was current. */
function leave() {
  startOver();
  current = null;
  byId("documents").replaceChildren();
  byId("no-documents").hidden = true;
}

function drawShelves() {
  byId("title").textContent = current ?? t("knowledge.title");
  document.title = `${current ?? t("knowledge.title")} · Pagoda`;
  byId("no-collections").hidden = shelves.length > 0;
  byId("upload").disabled = !current;
  byId("model").hidden = byId("quote").checked;
  byId("collections").replaceChildren(
    ...shelves.map(({ name, documents }) => row(name, t("knowledge.count", { count: documents }), () => choose(name), () => removeCollection(name), name === current)),
  );
}

async function drawDocuments() {
  const name = current;
  await attempt(async () => {
    const found = name === current ? await library.documents(name) : [];
    if (name !== current) return; // another was chosen, or another key does not see it
    byId("no-documents").hidden = found.length > 0;
    byId("documents").replaceChildren(
      ...found.map((each) => row(each.title, each.source, () => openPassage({ document: each.id, start: 0, end: 0 }), () => removeDocument(each), false)),
    );
  });
}

function row(title, note, open, remove, isCurrent) {
  const main = { type: "button", class: "open", "aria-current": isCurrent ? "page" : null, onclick: open };
  const label = t("knowledge.delete", { title });
  const other = { type: "button", class: "icon", "aria-label": label, title: label, onclick: remove };
  return el("li", { class: isCurrent ? "current" : null }, el("button", main, el("span", {}, title), el("small", {}, note)), el("button", other, icon("delete")));
}

async function newCollection() {
  const given = await askText(t("knowledge.new"), t("knowledge.name"), "");
  if (!given) return;
  if (!(await attempt(() => library.ensureCollection(given)))) return;
  await refresh();
  await choose(given);
}

async function removeCollection(name) {
  if (!(await confirmAction(t("knowledge.delete", { title: name }), t("knowledge.delete.text"), t("dialog.delete")))) return;
  if (await attempt(() => library.deleteCollection(name))) await refresh();
}

async function removeDocument({ id, title }) {
  if (!(await confirmAction(t("knowledge.delete", { title }), t("knowledge.delete.text"), t("dialog.delete")))) return;
  const collection = current;
  if (await attempt(() => library.deleteDocument(collection, id))) await changed();
}

async function changed() {
  await refresh();
  if (current) await drawDocuments();
}

/** Take files in, one by one, so that the rest goes on where one is broken. */
async function upload(files) {
  const name = current;
  if (!name) return;
  const button = byId("upload");
  button.disabled = true;
  const counts = { added: 0, failed: 0 };
  for (const [at, file] of [...files].entries()) {
    announce(t("knowledge.taking", { at: at + 1, count: files.length, name: file.name }));
    banner(t("knowledge.taking", { at: at + 1, count: files.length, name: file.name }));
    try {
      const report = await library.upload(name, [file]);
      counts.added += report.added.length + report.changed.length + report.unchanged;
      for (const { error } of report.failed) fail(error, counts);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      fail(`${file.name}: ${errorText(error)}`, counts);
    }
  }
  banner("");
  toast(t("knowledge.taken", counts));
  await changed();
}

function fail(text, counts) {
  counts.failed += 1;
  toast(text, "bad");
}

function send(text) {
  if (running || !current) {
    if (!current) toast(t("knowledge.none"), "bad");
    return false;
  }
  answer(text);
  return true;
}

async function answer(text) {
  byId("welcome").hidden = true;
  const controller = new AbortController();
  const shown = answers.add(text);
  const told = turns; // whoever starts over has others
  let refusal = null;
  running = controller;
  composer.setBusy(true);
  const question = { collection: current, question: text, method: byId("quote").checked ? "quote" : "auto" };
  if (!byId("quote").checked) Object.assign(question, { model: models.chosen || null, history: told.slice(-MOST_TURNS) });
  try {
    for await (const said of library.ask(question, controller.signal)) {
      if (said.type === "piece") shown.piece(said.text);
      if (said.type === "answer") {
        shown.done(said);
        announce(t("announce.answer", { text: said.answer }));
        told.push({ role: "user", content: text }, { role: "assistant", content: said.answer });
        if (said.model && said.outcome === "answered") judge(shown, question.collection, said);
      }
    }
  } catch (error) {
    if (controller.signal.aborted) return shown.stopped();
    if (!(error instanceof ApiError)) throw error;
    shown.fail(error);
    refusal = error;
  } finally {
    if (running === controller) running = null;
    composer.setBusy(running !== null);
  }
  if (refusal && isAboutKey(refusal)) await askForKey(refusal, () => tried(load, start), () => askAgain(question, shown));
}

/** Ask a question once more that was refused for want of a key. */
function askAgain({ collection, question }, shown) {
  drawShelves();
  if (collection !== current) return; // another key does not see it
  shown.remove();
  send(question);
}

/** Hold each claim of an answer against the documents. */
async function judge(shown, collection, { answer: text, query }) {
  try {
    shown.checked(await library.checkClaims(collection, text, query));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    toast(errorText(error), "bad");
  }
}

function openPassage({ document, start, end }) {
  pointTo({ document, start, end });
  reader.show(current, { document, start, end });
}

function closePassage() {
  reader.hide();
  pointTo(null);
}

/** Open the passage that the address names, in its collection. */
async function follow(wanted) {
  const { collection } = wanted;
  if (!isKnown(collection) && !(await refresh())) return;
  if (!isKnown(collection)) {
    closePassage();
    return toast(t("knowledge.missing", { name: collection }), "bad");
  }
  if (collection !== current) await choose(collection);
  if (collection === current) openPassage(wanted);
}

/** The address of the page names the passage that is open: `#collection/document/start-end`. */
function pointTo(passage) {
  const parts = passage ? [current, passage.document, `${passage.start}-${passage.end}`] : [];
  const hash = parts.map(encodeURIComponent).join("/");
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

function placeInAddress() {
  const [, collection, document, start, end] = /^#([^/]+)\/([^/]+)\/(\d+)-(\d+)$/.exec(location.hash) ?? [];
  if (!collection) return null;
  try {
    const [name, id] = [collection, document].map(decodeURIComponent);
    return { collection: name, document: id, start: Number(start), end: Number(end) };
  } catch (error) {
    if (error instanceof URIError) return null; // cut or mistyped
    throw error;
  }
}

function listen() {
  byId("new-collection").addEventListener("click", newCollection);
  byId("again").addEventListener("click", startOver);
  byId("quote").checked = preferences.get("quote") !== "no";
  byId("quote").addEventListener("change", ({ target }) => {
    preferences.set("quote", target.checked ? "yes" : "no");
    drawShelves();
  });
  byId("upload").addEventListener("click", () => byId("files").click());
  byId("files").addEventListener("change", async (event) => {
    await upload(event.target.files);
    event.target.value = "";
  });
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  window.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    upload(event.dataTransfer.files);
  });
  window.addEventListener("hashchange", () => {
    const wanted = placeInAddress();
    if (wanted) follow(wanted);
  });
  onLanguage(() => {
    drawShelves();
    if (current) drawDocuments();
  });
}

listen();
startTheme(byId("theme"));
startLanguage(byId("language"));
composer.setBusy(false);
start();
