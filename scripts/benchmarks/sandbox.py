"""Programs judged in the jail, beside a bare `python -I` that does nothing (the floor).

Goals: at most 3 times the floor, 25 programs/s. A verdict is a fork of a warm server into the jail (two for a
test that is code: program and judge), so it may cost less than a start of Python. Every hostile probe is
blocked by this very pool; the self-test at its start has shown it.
"""
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from measure import median, table, timed

from wmtp.evaluation.benchmarks import microcode_benchmark
from wmtp.sandbox.sandbox import Sandbox, self_test
from wmtp.sandbox.verdicts import by_calls, by_test

TEST = 'def check(candidate):\n    for i in range(10): assert candidate(i) == i + 1\ncheck(f)'


def run(draws, device):
    "Milliseconds per program on one server, and programs per second on all."
    took = timed(self_test)
    tasks = microcode_benchmark().tasks
    program = 'def f(x): return x + 1'
    start_python = [sys.executable, '-I', '-c', 'pass']
    with Sandbox(workers=1) as one, Sandbox() as pool, ThreadPoolExecutor(pool.workers) as threads:
        calls_of_first = partial(one.run_verdict, by_calls, tasks[0].reference, list(tasks[0].calls), 3.)
        works = {'python -I -c pass (floor)': lambda: subprocess.run(start_python, check=True),
                 'one program, 24 calls': calls_of_first,
                 'one program, a test that is code': lambda: one.run_verdict(by_test, program, TEST, 3.)}
        assert all(work().passed for name, work in works.items() if 'program' in name)
        seconds = {name: [] for name in works}
        for _ in range(10 * draws):
            for name, work in works.items(): seconds[name].append(timed(work))
        passes = lambda task: pool.run_verdict(by_calls, task.reference, list(task.calls), 3.).passed
        rates = []
        for _ in range(1 + draws):
            rates.append(len(tasks) / timed(lambda: list(threads.map(passes, tasks))))
    floor = median(seconds['python -I -c pass (floor)'])
    busy = f'load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors'
    table(f'sandbox: rung {one.rung}, self-test {took:.1f} s, {busy}; goal: at most 3.00x', [
        (name, 1000 * median(s), 'ms', median(s) / floor) for name, s in seconds.items()])
    table(f'sandbox: {pool.workers} servers, microcode references with 24 calls each; goal: at least '
          f'25 programs/s', [('programs judged', median(rates[1:]), 'programs/s', median(rates[1:]) / 25)])
