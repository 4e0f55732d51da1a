"""The form of written text: sentences, citations."""
