"""Experiments: one file for each question: a `Config`, a pure `run`, and a `main` that writes."""
