// What went wrong, in the reader's language; what the page does not know the server says itself.

import { t } from "./i18n.js";

const KNOWN = { unreachable: "error.unreachable", stream_cut: "error.cut", bad_frame: "error.frame", unfinished: "error.unfinished" };
const ABOUT_KEYS = {
  missing_api_key: "key.needed",
  invalid_api_key: "key.wrong",
  key_revoked: "key.revoked",
  key_expired: "key.expired",
  key_rotated: "key.rotated",
  too_many_attempts: "key.slow",
};

export function errorText(error) {
  const known = KNOWN[error.code];
  if (known) return t(known);
  return error.message || t("error.status", { status: error.status });
}

/** Whether a key, or another one, would help. */
export const isAboutKey = (error) => error.status === 401 || error.code === "too_many_attempts";

/** Why a key is asked for. */
export const keyText = (error) => (ABOUT_KEYS[error.code] ? t(ABOUT_KEYS[error.code]) : error.message);
