"""Programs that are wrong: dshard-opt must refuse each with one clear error, or compile
it into an equal program; it must never crash."""

import random
import re

AXIS = r'"(?:dp_replicate|dp_shard|cp|tp)"'


def replace_one(chooser, text, pattern, replacement):
    matches = list(re.finditer(pattern, text))
    if not matches:
        return text
    match = chooser.choice(matches)
    new = replacement(match) if callable(replacement) else match.expand(replacement)
    return text[: match.start()] + new + text[match.end() :]


def replace_everywhere(chooser, text, pattern):
    size = chooser.choice(re.findall(pattern, text) or ["9"])
    return re.sub(rf"\b{size}x", f"{int(size) + 1}x", text)


FAULTS = {
    "another size": lambda r, t: replace_one(r, t, r"(\d+)x", lambda m: f"{int(m.group(1)) + r.choice([1, 2, 3])}x"),
    "a size of zero": lambda r, t: replace_one(r, t, r"\b\d+x", "0x"),
    "a size everywhere": lambda r, t: replace_everywhere(r, t, r"(\d+)x"),
    "an unknown axis": lambda r, t: replace_one(r, t, AXIS, '"ep"'),
    "pp": lambda r, t: replace_one(r, t, AXIS, '"pp"'),
    "an axis twice": lambda r, t: replace_one(r, t, rf"\{{({AXIS})", r"{\1, \1"),
    "another axis": lambda r, t: replace_one(r, t, AXIS, r.choice(['"tp"', '"dp_shard"'])),
    "a factor that does not divide": lambda r, t: replace_one(r, t, rf"({AXIS})([,}}])", r"\1:(1)5\2"),
    "a factor of one": lambda r, t: replace_one(r, t, rf"({AXIS})([,}}])", r"\1:(2)1\2"),
    "a factor that overflows": lambda r, t: replace_one(r, t, rf"({AXIS})([,}}])", r"\1:(9223372036854775807)2\2"),
    "a negative factor": lambda r, t: replace_one(r, t, rf"({AXIS})([,}}])", r"\1:(-1)2\2"),
    "one dim less": lambda r, t: replace_one(r, t, r"sharding<\[\{[^}]*\},", "sharding<["),
    "one dim more": lambda r, t: replace_one(r, t, r"sharding<\[", "sharding<[{}, "),
    "an open argument": lambda r, t: replace_one(r, t, r"(dshard\.sharding = #dshard\.sharding<\[\{)", r"\1?"),
    "a partial mean": lambda r, t: replace_one(r, t, r" \]>", ' ], partial = {"tp"}, kind = mean>'),
    "a partial maximum": lambda r, t: replace_one(r, t, r" \]>", ' ], partial = {"tp"}, kind = max>'),
    "a partial sum": lambda r, t: replace_one(r, t, r" \]>", ' ], partial = {"dp_shard"}, kind = sum>'),
    "a mesh of another size": lambda r, t: replace_one(r, t, r'(mesh<.*?"\w+"=)\d+', r"\g<1>5"),
    "a mesh axis of size zero": lambda r, t: replace_one(r, t, r'(mesh<.*?"\w+"=)\d+', r"\g<1>0"),
    "a huge mesh": lambda r, t: replace_one(r, t, r'(mesh<.*?"\w+"=)\d+', r"\g<1>4611686018427387904"),
    "no mesh": lambda r, t: re.sub(r" attributes \{dshard\.mesh.*?>\}", "", t),
    "no path": lambda r, t: replace_one(r, t, r'path = "\w+", ', ""),
    "another element type": lambda r, t: replace_one(r, t, r"x(f32|i64|i1)>", r.choice(["xi32>", "xf64>", "xi1>", "xui8>"])),
    "a negative dim": lambda r, t: replace_one(r, t, r"dim = \d+", r.choice(["dim = -1", "dim = 7", "dim = -9223372036854775808"])),
    "other dims": lambda r, t: replace_one(r, t, r"array<i64: [\d, -]+>", r.choice(["array<i64: 5>", "array<i64: -1, 0>", "array<i64>", "array<i64: 0, 0, 0>"])),
    "another operand": lambda r, t: replace_one(r, t, r"%[av]\d+(?=,)", r.choice(["%a0", "%v0", "%a1"])),
    "an unknown op": lambda r, t: replace_one(r, t, r"= dshard\.\w+", "= dshard.nothing"),
    "shardings of another count": lambda r, t: replace_one(r, t, r"dshard\.shardings = \[", "dshard.shardings = [#dshard.sharding<[{} ]>, "),
    "a broken line": lambda r, t: t[: r.randrange(len(t))],
}


def spoil(program, seed):
    """(the fault, the text with one or two faults)."""
    chooser = random.Random(seed)
    names = chooser.sample(sorted(FAULTS), chooser.choice([1, 1, 2]))
    text = program.text()
    for name in names:
        text = FAULTS[name](chooser, text)
    return " and ".join(names), text
