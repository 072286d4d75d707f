"""`sign`: who made an artefact can be checked where it is used."""

import argparse
from pathlib import Path

from racer_jax.cli.options import Subparsers, add_command, add_json
from racer_jax.cli.output import print_json, print_line
from racer_jax.data.formats._source import check_exists


def add(subparsers: Subparsers) -> None:
    """The command of this module. Use this when the parser of all commands is made."""
    parser = add_command(
        subparsers,
        "sign",
        "Sign an artefact. Where a gateway's configuration names the public key (trusted_keys), it "
        "takes artefacts alone that were signed with it. Sign again after every change.",
        """
racer-jax sign --new-key signing.pem           a key: keep the file, hand out what is printed
racer-jax sign my.racer --key signing.pem""",
        check=_check,
        needs=(),
    )
    parser.add_argument("artefact", nargs="?", type=Path, metavar="ARTEFACT", help="folder to sign")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="the private key, in PEM (default: no key)"
    )
    parser.add_argument(
        "--new-key",
        type=Path,
        metavar="FILE",
        help="write a new private key to FILE, print the public one, and end (default: no key)",
    )
    add_json(parser)
    parser.set_defaults(run=sign)


def _check(parsed: argparse.Namespace) -> None:
    """Refuses options that do not go together; all else is said at once, for it needs no JAX."""
    signing = [parsed.artefact is not None, parsed.key is not None]
    alone = parsed.new_key is not None and not any(signing)
    if not alone and (parsed.new_key is not None or not all(signing)):
        raise ValueError("give ARTEFACT and --key FILE, or --new-key FILE alone")
    if parsed.key is not None:
        check_exists(parsed.key)


def sign(parsed: argparse.Namespace) -> None:
    """`sign`. Use this when a command line asks for a signature."""
    from racer_jax.racer import signatures

    if parsed.new_key is not None:
        public = signatures.new_signing_key(parsed.new_key)
        _say(parsed, public, f"the private key is in {parsed.new_key}; the public key is")
        return
    public = signatures.sign(parsed.artefact, parsed.key)
    _say(parsed, public, f"{parsed.artefact} is signed; readers must trust")


def _say(parsed: argparse.Namespace, public: str, words: str) -> None:
    if parsed.json:
        print_json({"public_key": public})
    else:
        print_line(f"{words}\n  {public}")
