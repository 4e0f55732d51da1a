// The line below an answer: tokens, time, speed.

import { number, t } from "./i18n.js";

/** Parts such as "31 tokens in", "120 out", "2.4 s"; what the server did not say is left out, never guessed. */
export function statParts(message) {
  const { stats = {} } = message;
  const parts = [];
  if (isFinite(stats.prompt)) parts.push(t("stats.in", { count: number(stats.prompt) }));
  if (isFinite(stats.completion)) parts.push(t("stats.out", { count: number(stats.completion) }));
  if (isFinite(stats.total)) parts.push(t("stats.seconds", { seconds: seconds(stats.total) }));
  const speed = tokensPerSecond(stats);
  if (speed !== null) parts.push(t("stats.speed", { speed: number(speed, speed < 10 ? 1 : 0) }));
  if (isFinite(stats.first)) parts.push(t("stats.first", { seconds: seconds(stats.first) }));
  return parts;
}

/** Why an answer ended early, as words; empty if it did not. */
export function endNote(message) {
  if (message.stopped) return t("message.stopped");
  if (message.stats?.finish === "length") return t("message.cut");
  if (message.stats?.finish === "content_filter") return t("message.filtered");
  return "";
}

/** Below this many seconds a speed would mostly measure the network's buffers. */
const SHORTEST = 0.1;

/** Tokens after the first, over the time after the first: the wait for the prompt is shown by itself. */
export function tokensPerSecond({ completion, first, total }) {
  if (![completion, first, total].every(isFinite) || completion < 2 || total - first < SHORTEST) return null;
  return (completion - 1) / (total - first);
}

const isFinite = (value) => typeof value === "number" && Number.isFinite(value);
const seconds = (value) => number(value, value < 0.095 ? 2 : 1);
