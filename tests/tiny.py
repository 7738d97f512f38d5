"""The tests' side of `tiny_run.py`: start a run, let something happen to it, get its exit codes."""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file


class Server:
    "A process with torch loaded from which runs are forked."
    def __init__(self, errors):
        self.errors, self.n_read = errors, 0
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'TOKENIZERS_PARALLELISM': 'false'}
        self.process = subprocess.Popen([sys.executable, str(Path(__file__).with_name('tiny_run.py'))],
                                        text=True, env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=errors.open('w'))
        assert self.process.stdout.readline() == 'ready\n', self.messages()

    def run(self, folder, meanwhile=None, **request):
        """Exit codes of the run's processes, negative = killed by that signal.

        `meanwhile(pids)` is called once they have started."""
        store = folder.with_name(f'.store-{time.time_ns()}')
        self.n_read = len(self.errors.read_text())
        self.process.stdin.write(json.dumps({'folder': str(folder), 'store': str(store), **request}) + '\n')
        self.process.stdin.flush()
        pids = json.loads(self.process.stdout.readline())
        if meanwhile: meanwhile(pids)
        codes = json.loads(self.process.stdout.readline())
        return codes if len(codes) > 1 else codes[0]

    def messages(self):
        "What the processes of the last run wrote to stderr."
        return self.errors.read_text()[self.n_read:]


def send(pid, *signals, after=0., pause=0.):
    "Send signals to a process that may be gone already."
    time.sleep(after)
    for signum in signals:
        try: os.kill(pid, signum)
        except ProcessLookupError: return
        time.sleep(pause)


@pytest.fixture(scope='session')
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp('server')/'errors')
    yield server
    server.process.stdin.close()
    server.process.wait(20)


def final_state(folder):
    "What must not depend on interruptions: final weights, optimizer, journal, best and last."
    last = folder/'step-000040'
    shards = sorted((last/'trainer').glob('shares/*')) # their tables of contents are in no fixed order
    shares = [sorted((name, t.tobytes()) for name, t in load_file(path).items()) for path in shards]
    return [(last/'model.safetensors').read_bytes(), shares or (last/'trainer'/'optimizer.pt').read_bytes(),
            (folder/'journal.jsonl').read_bytes(), json.loads((folder/'checkpoints.json').read_text())]


def wait_for(path, seconds=60):
    "Wait until a file or folder exists."
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f'{path} did not appear'
        time.sleep(.002)
