"""The transformers engine process: a small OpenAI-like server around transformers' own continuous batching.

``server`` speaks HTTP, ``batching`` adds what the library's scheduler lacks (adapters, cancelling, counting),
``sampling`` draws every row by its own request's settings, ``constraint`` masks what a JSON Schema forbids,
``checkpoint`` loads and refuses. Only here is torch imported; ``pagoda.model.engines.transformers`` launches it
without.
"""
