"""What pytest must not import: a script that needs atheris."""

collect_ignore = ["atheris_readers.py"]
