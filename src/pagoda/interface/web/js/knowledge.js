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

/** Do what may fail; what is wrong is said in the banner, and a key is asked for where one is missing. */
async function attempt(work) {
  try {
    await work();
    banner("");
    return null;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (isAboutKey(error)) return error;
    banner(errorText(error), { label: t("error.retry"), run: () => attempt(work) });
    return error;
  }
}

async function refresh() {
  const work = async () => {
    await models.refresh();
    shelves = await library.collections();
  };
  const error = await attempt(work);
  if (error && isAboutKey(error)) return askForKey(error, () => attempt(work), start);
  drawShelves();
}

async function start() {
  await refresh();
  const wanted = placeInAddress();
  const kept = preferences.get("collection");
  const first = [wanted?.collection, kept, shelves[0]?.name].find((name) => shelves.some((each) => each.name === name));
  if (first) await choose(first);
  if (wanted && current) openPassage(wanted);
}

async function choose(name) {
  if (name !== current) startOver();
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
  reader.hide();
  byId("welcome").hidden = false;
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
    const found = await library.documents(name);
    if (name !== current) return;
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
  const error = await attempt(() => library.ensureCollection(given));
  if (error) return;
  await refresh();
  await choose(given);
}

async function removeCollection(name) {
  if (!(await confirmAction(t("knowledge.delete", { title: name }), t("knowledge.delete.text"), t("dialog.delete")))) return;
  await attempt(() => library.deleteCollection(name));
  if (name === current) {
    startOver();
    current = null;
    byId("documents").replaceChildren();
    byId("no-documents").hidden = true;
  }
  await refresh();
}

async function removeDocument({ id, title }) {
  if (!(await confirmAction(t("knowledge.delete", { title }), t("knowledge.delete.text"), t("dialog.delete")))) return;
  await attempt(() => library.deleteDocument(current, id));
  await changed();
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
  running = controller;
  composer.setBusy(true);
  try {
    const question = { collection: current, question: text, method: byId("quote").checked ? "quote" : "auto" };
    if (!byId("quote").checked) Object.assign(question, { model: models.chosen || null, history: turns.slice(-MOST_TURNS) });
    for await (const said of library.ask(question, controller.signal)) {
      if (said.type === "piece") shown.piece(said.text);
      if (said.type === "answer") {
        shown.done(said);
        announce(t("announce.answer", { text: said.answer }));
        turns.push({ role: "user", content: text }, { role: "assistant", content: said.answer });
        if (said.model && said.outcome === "answered") judge(shown, question.collection, said);
      }
    }
  } catch (error) {
    if (controller.signal.aborted) shown.stopped();
    else if (error instanceof ApiError) shown.fail(error);
    else throw error;
  } finally {
    if (running === controller) running = null;
    composer.setBusy(running !== null);
  }
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

/** The address of the page names the passage that is open: `#collection/document/start-end`. */
function pointTo(passage) {
  const parts = passage ? [current, passage.document, `${passage.start}-${passage.end}`] : [];
  const hash = parts.map(encodeURIComponent).join("/");
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

function placeInAddress() {
  const [collection, document, range] = location.hash.slice(1).split("/").map(decodeURIComponent);
  const places = /^(\d+)-(\d+)$/.exec(range ?? "");
  return places ? { collection, document, start: Number(places[1]), end: Number(places[2]) } : null;
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
    if (wanted && wanted.collection === current) reader.show(current, wanted);
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
