"""What a run of the node cases says: missing things by number of cases, and the page docs/onnx-coverage.md."""

import collections
import re


def cause(reason):
    """A reason without what differs from case to case: operator, type, or the text without numbers."""
    match = re.match(r"(\d+) ops? (?:is|are) not supported: (.*)", reason)
    if match:
        listed = [part.split(",")[0].strip() for part in match.group(2).split("; ")]
        return "operator " + ", ".join(sorted(set(listed)))
    match = re.search(r"element type (\S+)(?: is not supported|, which is not supported)", reason)
    if match:
        return "type " + match.group(1)
    return re.sub(r"'[^']*'", "'..'", re.sub(r"\[[^\]]*\]", "[..]", re.sub(r"-?\d+(\.\d+)?", "N", reason)))


def reasons(whole, main_ops):
    """Lines: how many cases each missing thing refuses, and which operators' they are."""
    groups = collections.defaultdict(list)
    for name, (verdict, reason, _) in whole.items():
        if verdict == "refused":
            groups[cause(reason)].append(name)
    lines = []
    for text, names in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        found = collections.Counter(main_ops[n] for n in names)
        shown = ", ".join(f"{op} {n}" for op, n in sorted(found.items(), key=lambda x: (-x[1], x[0]))[:6])
        lines.append(f"{len(names):5}  {text}  <- {shown}")
    return "\n".join(lines)


def _reason_cell(found):
    """The reasons of an operator's refused cases, most frequent first."""
    texts = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(text + (f" ({n})" if n > 1 else "") for text, n in texts).replace("|", "\\|").replace("<", "&lt;")


def page(whole, main_ops):
    """The whole page. Nothing in it depends on the machine."""
    rows = collections.defaultdict(lambda: [0, 0, collections.Counter()])
    for name, (verdict, reason, _) in whole.items():
        row = rows[main_ops[name]]
        row[0] += 1
        row[1] += verdict == "passed"
        if verdict == "refused":
            row[2][cause(reason)] += 1
        elif verdict != "passed":
            row[2][f"**{verdict}**: {name}"] += 1
    passed = sum(row[1] for row in rows.values())
    full = sum(row[0] == row[1] for row in rows.values())
    lines = [
        "# ONNX coverage",
        "",
        "<!-- Written by `scripts/onnx-suite --write`; the tests fail if it is out of date. -->",
        "",
        f"Of the {len(whole)} official node cases (onnx 1.23.2, opset 28; cases `_expanded` count for the operator that they expand) {passed} pass: compiled, run and compared with the",
        f"expected outputs. {full} of {len(rows)} operators pass all their cases. Every other case is refused with one line before anything runs.",
        "`scripts/onnx-suite --sharded` runs those that pass also with each dim of each input sharded over 2 and 4 ranks.",
        "",
        "| operator | passed | of | refused because |",
        "|---|---|---|---|",
    ]
    for op, (total, good, refused) in sorted(rows.items()):
        lines.append(f"| {op} | {good} | {total} | {_reason_cell(refused)} |")
    return "\n".join(lines) + "\n"
