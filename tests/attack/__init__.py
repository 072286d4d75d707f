"""Attacks on what SECURITY.md promises; each prints what was tried and what did not hold.

    python -m tests.attack                      all of them, at the size of a minute or two each
    python -m tests.attack --rounds 10 files    one of them, ten times as long
    pytest tests/attack -m slow                 the same as tests; RACER_ATTACK_ROUNDS sets the size

What did not hold is of one of three kinds: something was lost (or something that was never there
appeared), another exception than the documented ones came out, or a stated limit of time or memory
was passed.
"""
