"""Storey 1, model: catalog, engines and (later) training. Knows no caller."""
