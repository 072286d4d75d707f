"""The version, in a module of its own: code that records it needs nothing else."""

__version__ = "0.1.0"
