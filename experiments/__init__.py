"""Experiments: one file for each question, all of one shape: a `Config`, a pure `run`, and a `main` that writes."""
