"""The version, in a module of its own: whoever writes it down needs nothing else."""

__version__ = "0.1.0"
