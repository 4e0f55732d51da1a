"""Measuring any OpenAI-compatible address under load: ``pagoda bench engine``.

``schedule`` says when requests are due, ``prompts`` what they ask, ``measuring`` takes one request's timeline,
``driving`` keeps the load, ``figures`` makes numbers of timelines, ``engine`` is the whole of it. Nothing here knows
which engine answers, so that a peer is measured by the very same code.
"""
