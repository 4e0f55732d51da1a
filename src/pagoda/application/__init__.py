"""Storey 5, application: the products, and the only place where objects are wired together."""
