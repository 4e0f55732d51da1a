// Use up the browser's storage for this origin.
() => {
  let piece = "x".repeat(1 << 20);
  while (piece.length > 8) try { localStorage.setItem("other." + Math.random(), piece); } catch { piece = piece.slice(piece.length / 2); }
}
