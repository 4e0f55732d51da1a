"""Storey 3, business logic: what applications are made of, above the one door to the models."""
