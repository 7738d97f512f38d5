"""`wmtp_critic --help` in a fresh process, beside a Python that does nothing (the floor)."""
import subprocess
import sys

from measure import median, table, timed


def run(draws, device):
    "`wmtp_critic --help` in a fresh process, beside a Python that does nothing (the floor)."
    codes = {'python -c pass (floor)': 'pass',
             'wmtp_critic --help': "import sys; from wmtp.cli import main; sys.exit(main('critic', "
                                   "['--help']))"}
    start = lambda code: subprocess.run([sys.executable, '-c', code], stdout=subprocess.DEVNULL, check=True)
    seconds = {name: [] for name in codes}
    for _ in range(1 + 2 * draws):
        for name, code in codes.items(): seconds[name].append(timed(lambda: start(code)))
    took = {name: median(s[1:]) for name, s in seconds.items()}
    floor = took['python -c pass (floor)']
    table(f'help: wall time of a process, median of {2 * draws}; goal under 1,000 ms; ratios of time', [
        (name, 1000 * s, 'ms', s / floor) for name, s in took.items()])
