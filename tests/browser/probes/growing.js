// Grow each text letter by letter; give those that end other than when drawn at once.
async (texts) => {
  const { MarkdownView, render } = await import(document.querySelector("script[type=module]").src.replace("app.js", "markdown.js"));
  const wrong = [];
  for (const text of texts) {
    const place = document.createElement("div"), whole = document.createElement("div");
    whole.append(render(text));
    const view = new MarkdownView(place);
    for (let end = 1; end <= text.length; end += 1) view.grow(text.slice(0, end));
    if (place.textContent.replace(/\s/g, "") !== whole.textContent.replace(/\s/g, "")) wrong.push(text);
    view.finish(text);
    place.normalize(); whole.normalize();
    if (!place.isEqualNode(whole)) wrong.push(text);
  }
  return wrong;
}
