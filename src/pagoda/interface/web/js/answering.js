// One answer: asks the model and fills an assistant message as it arrives. Knows nothing about the screen.

import { ApiError, streamChat } from "./api.js";

/** The request for the next answer of `conversation`, whose last message is the empty answer itself. */
export function requestFor(conversation) {
  const { model, system, temperature, length } = conversation.settings;
  const messages = conversation.messages
    .filter((message) => message.role === "user" || message.content)
    .map(({ role, content }) => ({ role, content }));
  if (system.trim()) messages.unshift({ role: "system", content: system });
  const request = { messages };
  if (model) request.model = model;
  if (temperature !== null) request.temperature = temperature;
  if (length !== null) request.max_tokens = length;
  return request;
}

/** Fill `message`; call `onGrow` after each piece. Never throws for what can go wrong on the way: that is in `message.error`. */
export async function fillAnswer(message, request, signal, onGrow) {
  const started = performance.now();
  const elapsed = () => (performance.now() - started) / 1000;
  const stats = { prompt: null, completion: null, first: null, total: null, finish: null };
  message.stats = stats;
  try {
    for await (const piece of streamChat(request, signal)) {
      if (piece.requestId) message.requestId = piece.requestId;
      if (piece.text || piece.reasoning) stats.first ??= elapsed();
      if (piece.text) message.content += piece.text;
      if (piece.reasoning) message.reasoning = (message.reasoning ?? "") + piece.reasoning;
      if (piece.finish) stats.finish = piece.finish;
      if (piece.usage) {
        stats.prompt = piece.usage.prompt_tokens ?? null;
        stats.completion = piece.usage.completion_tokens ?? null;
      }
      onGrow();
    }
  } catch (error) {
    if (signal.aborted) {
      message.stopped = true;
    } else if (error instanceof ApiError) {
      message.error = { message: error.message, code: error.code, status: error.status, requestId: error.requestId };
    } else {
      throw error;
    }
  } finally {
    stats.total = elapsed();
  }
}
