"""A smaller model taught by a larger one: by its distribution at each token, or by the answers that it gives."""
