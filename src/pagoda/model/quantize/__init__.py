"""Smaller forms of a model, and one report on what each costs and gives."""
