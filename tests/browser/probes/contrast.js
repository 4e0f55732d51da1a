// The contrast (WCAG 2) of each text colour on the surfaces where it is used.
() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (name) => {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    context.fillStyle = getComputedStyle(probe).color;
    probe.remove();
    context.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pairs = { "--on-accent": ["--accent", "--accent-strong"], "--ground": ["--ink"], "--bad": ["--bad-wash", "--surface"] };
  for (const ink of ["--ink", "--ink-soft", "--link", "--accent"]) pairs[ink] = ["--ground", "--surface", "--raised"];
  for (const ink of ["ink", "word", "text", "name", "number", "note"]) pairs[`--code-${ink}`] = ["--surface"];
  pairs["--ink"].push("--accent-wash", "--hover");
  pairs["--ink-soft"].push("--hover");
  return Object.entries(pairs).flatMap(([ink, grounds]) => grounds.map((ground) => {
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    return [`${ink} on ${ground}`, (a + 0.05) / (b + 0.05)];
  }));
}
