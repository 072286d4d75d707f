"""The `racer-jax` command: parsers and what each command does.

May use: everything but `studies`.
"""
