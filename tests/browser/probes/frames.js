// Read one stream cut at every pair of places; give the cuts that read it wrongly.
async () => {
  const { FrameDecoder } = await import(document.querySelector("script[type=module]").src.replace("app.js", "stream.js"));
  const text = "\ufeff: hello\r\ndata: {\"a\": \"世界🙂\"}\r\n\r\n: keep-alive\n\nevent: x\nid: 1\ndata:one\ndata: two\n\ndata\r\rdata: last";
  const expected = JSON.stringify(['{"a": "世界🙂"}', "one\ntwo", "", "last"]);
  const bytes = new TextEncoder().encode(text);
  const read = (cuts) => {
    const decoder = new FrameDecoder(), found = [];
    let start = 0;
    for (const cut of [...cuts, bytes.length]) { found.push(...decoder.push(bytes.slice(start, cut))); start = cut; }
    return JSON.stringify([...found, ...decoder.end()]);
  };
  const wrong = [];
  for (let a = 0; a <= bytes.length; a += 1) for (let b = a; b <= bytes.length; b += 1) if (read([a, b]) !== expected) wrong.push([a, b, read([a, b])]);
  if (read([...bytes.keys()]) !== expected) wrong.push("byte by byte");
  return wrong.slice(0, 3);
}
