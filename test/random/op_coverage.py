"""What the random tests must reach: every registered op, read from the .td files."""

import pathlib
import re

FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "include" / "dshard" / "Dialect" / "DShard" / "IR"

# Ops that no pass makes of an annotated program today, and where they are tested. One
# that turns up in the output of a pass fails the test: it then needs programs of its own.
ELSEWHERE = {
    "broadcast": "test/Reference/test_collectives.py",
    "send": "test/Reference/test_collectives.py",
    "recv": "test/Reference/test_collectives.py",
}


def registered_ops():
    """Mnemonics of all op definitions, classes that take a mnemonic included."""
    text = "".join(path.read_text() for path in sorted(FOLDER.glob("*Ops.td")))
    defined = re.findall(r"^def DShard_\w+Op\s*:\s*\w+<(?:DShard_Dialect,\s*)?\"(\w+)\"", text, re.MULTILINE)
    assert len(re.findall(r"^def DShard_\w+Op\b", text, re.MULTILINE)) == len(defined)
    return defined


def ops_in(text):
    return set(re.findall(r"\bdshard\.(\w+) ", text))
