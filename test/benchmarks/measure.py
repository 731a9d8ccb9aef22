"""Times contestants against each other in one run, so that a ratio means something.

Contestants take turns, one process at a time, with a pause before each turn. A turn
gives one or more samples; the figure of a turn is its median. Over the turns: median,
best (the least disturbed), and spread ((largest - smallest) / median). A ratio is the
median of the ratios of neighbouring turns, so that slow changes of the machine cancel.
"""

import dataclasses
import datetime
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RESULTS = pathlib.Path(__file__).resolve().parent / "results"
PAUSE_SECONDS = 0.05  # at least 0.03: workers of the one before go to sleep


@dataclasses.dataclass
class Contestant:
    name: str
    turn: object  # () -> list of samples
    turns: list = dataclasses.field(default_factory=list)

    def figures(self):
        return [statistics.median(samples) for samples in self.turns]

    def median(self):
        return statistics.median(self.figures())

    def best(self):
        return min(min(samples) for samples in self.turns)

    def spread(self):
        figures = self.figures()
        return (max(figures) - min(figures)) / self.median()

    def ratio(self, base):
        return statistics.median(a / b for a, b in zip(self.figures(), base.figures()))


def busy_seconds():
    """CPU seconds of the whole machine that were not idle."""
    fields = [int(f) for f in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


class Meter:
    """The share of the machine's CPUs that other processes use while it lives: above a few
    percent times mean little. Subprocesses count once they have ended."""

    def __init__(self):
        self.busy, self.own, self.begin = busy_seconds(), own_seconds(), time.monotonic()

    def others(self):
        others = busy_seconds() - self.busy - (own_seconds() - self.own)
        # /proc/stat counts in ticks, which a short run oversteps.
        return min(1.0, max(0.0, others / (time.monotonic() - self.begin) / os.cpu_count()))


def compete(contestants, rounds):
    """Runs all of them `rounds` times in turns; returns what a Meter says meanwhile."""
    meter = Meter()
    for _ in range(rounds):
        for contestant in contestants:
            time.sleep(PAUSE_SECONDS)
            contestant.turns.append(contestant.turn())
    return meter.others()


def cpu_seconds(command):
    """User and system seconds of one process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table(header, rows):
    rows = [header] + rows
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def git(*arguments):
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()


def machine():
    cpu = platform.processor()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":")[1].strip()
            break
    return f"{cpu}, {os.cpu_count()} CPUs, Linux {platform.release()}"


def heading(name, command):
    changed = " with local changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return "\n".join(
        [
            f"benchmark {name}",
            f"date      {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
            f"commit    {git('rev-parse', 'HEAD')}{changed}",
            f"machine   {machine()}",
            f"load      {os.getloadavg()[0]:.2f} at the start",
            f"command   {command}",
        ]
    )


def samples_text(groups, unit):
    lines = [f"samples, {unit}, one line per turn"]
    for title, contestants in groups:
        for contestant in contestants:
            for samples in contestant.turns:
                lines.append(f"  {title} | {contestant.name} | " + " ".join(f"{s:.3f}" for s in samples))
    return "\n".join(lines)


def write(name, text):
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{datetime.date.today():%Y%m%d}.txt"
    path.write_text(text + "\n")
    return path
