"""One file a version, ``vNNNN_what.py``; its revision is ``NNNN``, so the names alone tell the newest."""
