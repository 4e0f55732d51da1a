"""Which models there are, where their files come from, and how they get onto this machine."""
