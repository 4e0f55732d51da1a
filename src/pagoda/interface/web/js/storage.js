// The browser's storage behind one door: it may be blocked, full, or hold what an older page wrote.

/** Small preferences; losing one is harmless, so a refusal is not worth a message. */
export const preferences = {
  get(name) {
    return read(localStorageOrNull(), `pagoda.${name}`);
  },
  set(name, value) {
    return write(localStorageOrNull(), `pagoda.${name}`, value);
  },
};

/** The API key: for this tab only, unless the user asks to keep it. */
export const keyring = {
  get() {
    return read(sessionStorageOrNull(), "pagoda.key") ?? read(localStorageOrNull(), "pagoda.key") ?? "";
  },
  set(key, remember) {
    write(localStorageOrNull(), "pagoda.key", remember && key ? key : null);
    return write(sessionStorageOrNull(), "pagoda.key", key || null);
  },
};

export function localStorageOrNull() {
  try {
    return window.localStorage;
  } catch {
    return null; // blocked by the browser's settings
  }
}

function sessionStorageOrNull() {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
}

function read(store, name) {
  return store?.getItem(name) ?? null;
}

/** True if it was kept. */
export function write(store, name, value) {
  if (!store) return false;
  try {
    if (value === null) store.removeItem(name);
    else store.setItem(name, value);
    return true;
  } catch (error) {
    if (error instanceof DOMException) return false; // the quota is used up
    throw error;
  }
}
