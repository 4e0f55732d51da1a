"""Feedback: what people say of answers, the outcomes of experiments in it, and training data made of it."""
