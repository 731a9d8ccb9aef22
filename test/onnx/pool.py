"""Worker processes, one case at a time each: one that dies is a crash of its case, not of the run."""

import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import sys
import tempfile
import time

TIMEOUT = 120


def _work(pipe, cases, build):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from check import Runner
    from library import Library

    with tempfile.TemporaryDirectory(prefix="dshard-onnx-") as folder:
        runner = Runner(Library(build), cases, folder)
        while True:
            task = pipe.recv()
            if task is None:
                return
            kind, arguments = task
            try:
                pipe.send(getattr(runner, kind)(*arguments))
            except Exception as error:  # the suite's own fault, or data that it does not know
                pipe.send(error)


class _Worker:
    def __init__(self, context, cases, build, log):
        self.pipe, other = context.Pipe()
        self.log = log
        self.process = context.Process(target=_run, args=(other, cases, build, log), daemon=True)
        self.process.start()
        other.close()
        self.task = None
        self.started = 0.0


def _run(pipe, cases, build, log):
    # What a crash prints (an assertion, a sanitizer) goes to a file that says why.
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 2)
    _work(pipe, cases, build)


def _last_line(log):
    try:
        lines = [line.strip() for line in pathlib.Path(log).read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    notable = [line for line in lines if "ERROR: " in line or "Assertion" in line or "LLVM ERROR" in line or "error" in line]
    return (notable or lines or [""])[-1][:200]


def run(tasks, cases, build, jobs, progress):
    """`tasks`: [(key, kind, arguments)]. Gives {key: result}; a crash is an Exception."""
    context = multiprocessing.get_context("spawn")
    results = {}
    waiting = list(reversed(tasks))
    with tempfile.TemporaryDirectory(prefix="dshard-onnx-") as folder:
        counter = [0]

        def start():
            counter[0] += 1
            return _Worker(context, cases, build, os.path.join(folder, f"{counter[0]}.log"))

        workers = [start() for _ in range(min(jobs, max(1, len(tasks))))]
        try:
            while waiting or any(w.task for w in workers):
                for i, worker in enumerate(workers):
                    if worker.task is None and waiting:
                        worker.task = waiting.pop()
                        worker.started = time.monotonic()
                        try:
                            worker.pipe.send(worker.task[1:])
                        except OSError:
                            pass  # it is dead: found below
                busy = [w for w in workers if w.task]
                ready = multiprocessing.connection.wait([w.pipe for w in busy], timeout=1)
                for i, worker in enumerate(workers):
                    if worker.task is None:
                        continue
                    late = time.monotonic() - worker.started > TIMEOUT
                    if worker.pipe not in ready and not late:
                        continue
                    key = worker.task[0]
                    try:
                        if late and worker.pipe not in ready:
                            raise EOFError
                        results[key] = worker.pipe.recv()
                        worker.task = None
                    except (EOFError, OSError):
                        worker.process.kill()
                        worker.process.join()
                        code = worker.process.exitcode
                        why = f"no answer in {TIMEOUT} s" if late else f"signal {-code}" if code and code < 0 else f"exit status {code}"
                        line = _last_line(worker.log)
                        results[key] = Crash(why + (f": {line}" if line else ""))
                        workers[i] = start()
                    progress(len(results), len(tasks))
        finally:
            for worker in workers:
                try:
                    worker.pipe.send(None)
                except OSError:
                    pass
            for worker in workers:
                worker.process.join(5)
                if worker.process.is_alive():
                    worker.process.kill()
    return results


class Crash(Exception):
    pass
