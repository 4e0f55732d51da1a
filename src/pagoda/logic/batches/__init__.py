"""Batches: many requests in a file, answered through the one door at low priority, each exactly once.

``lines`` reads and checks the input, ``answers`` keeps the output so that a killed batch goes on where it was,
``work`` answers the lines, ``shelf`` keeps uploaded files and ``ledger`` the batches that were asked for over HTTP. The
work itself is a run of the kind ``batch`` (``application/batching.py``), whose directory says how it stands.
"""
