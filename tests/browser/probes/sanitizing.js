// Put markup through the sanitizer alone; give what is left of it and whether any of it ran.
async (payloads) => {
  const { sanitize } = await import(document.querySelector("script[type=module]").src.replace("app.js", "markdown.js"));
  const place = document.createElement("div");
  place.id = "proof";
  document.body.append(place);
  for (const payload of payloads) place.append(sanitize(payload));
  for (const link of place.querySelectorAll("a[href]")) link.click();
  await new Promise((resolve) => setTimeout(resolve, 50));
  const attributes = new Set(), tags = new Set();
  for (const element of place.querySelectorAll("*")) {
    tags.add(element.localName);
    for (const { name } of element.attributes) attributes.add(name);
  }
  return { tags: [...tags].sort(), attributes: [...attributes].sort(), hacked: window.hacked ?? null };
}
