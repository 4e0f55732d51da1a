// Count frames, and for each drawing of an answer how many of its blocks were taken away to be drawn again.
() => {
  window.framesSeen = 0;
  window.removals = [];
  const count = () => {
    window.framesSeen += 1;
    requestAnimationFrame(count);
  };
  requestAnimationFrame(count);
  const look = (records) => {
    const own = records.filter((record) => record.target.className === "prose");
    if (!own.some((record) => record.addedNodes.length)) return;
    window.removals.push(own.reduce((sum, record) => sum + record.removedNodes.length, 0));
  };
  new MutationObserver(look).observe(document.getElementById("thread"), { childList: true, subtree: true });
}
