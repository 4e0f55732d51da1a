"""Routes: one module a family. They turn requests into calls at the door, and answers into responses."""
