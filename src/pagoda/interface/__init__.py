"""Storey 4, interface: HTTP routes, schemas, streaming and error rendering. Decides nothing about models."""
