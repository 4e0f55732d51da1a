"""The review queue: answers that people look at, how far they agree, and what is learnt from it."""
