// Asking for the API key, until the server takes one.

import { askKey } from "./dialogs.js";
import { byId } from "./dom.js";
import { isAboutKey, keyText } from "./errors.js";
import { keyring } from "./storage.js";

/** Ask for a key until `attempt()` gives no error about it, then go on; `error` is the refusal, if that is why. */
export async function askForKey(error, attempt, then) {
  if (byId("dialog").open) return;
  let refused = error;
  do {
    const given = await askKey(refused ? keyText(refused) : "");
    if (!given) return;
    keyring.set(given.key, given.remember);
    refused = await attempt();
  } while (refused && isAboutKey(refused));
  then();
}
