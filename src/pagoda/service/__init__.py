"""Storey 2, model service: engine supervision and the path of a call to an engine. Knows no purpose."""
