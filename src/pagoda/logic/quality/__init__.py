"""Quality in production: a share of answers is scored off the request's path, and what looks wrong goes to people."""
