"""wmtp's commands in processes of their own, forked from one that has torch and the pipelines loaded.

That takes a tenth of a second, not five. What a process that is started anew does differently is shown by
tests that start one: `real` makes its command line.
"""
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]
WARM = multiprocessing.get_context('forkserver')
WARM.set_forkserver_preload(['pytest', 'mlflow', 'wmtp.cli',
                             *(f'wmtp.pipelines.{name}' for name in ('critic', 'baseline', 'verifiable',
                                                                     'rho1', 'evaluate'))])


def arguments(args, settings): return [*map(str, args), *(['--set', *map(str, settings)] if settings else [])]


def real(name, *args, settings=()):
    "The command line of a command, for a process that is started anew."
    return [sys.executable, '-c', f'import sys; from wmtp.cli import {name}; sys.exit({name}())',
            *arguments(args, settings)]


def child(name, args, env, said, first):
    "What the forked process does, `first` before the command; `said` is a folder for what it prints."
    os.environ.update(env)
    os.chdir(ROOT)
    for descriptor, stream in ((1, 'stdout'), (2, 'stderr')):
        os.dup2(os.open(f'{said}/{stream}', os.O_WRONLY | os.O_CREAT), descriptor)
    import wmtp.cli
    sys.argv = [f'wmtp_{name}', *args]
    if first: first()
    sys.exit(getattr(wmtp.cli, name)())


class Running:
    "A command that has been started; `prepare` is given the folder of its stdout and stderr."
    def __init__(self, name, *args, settings=(), prepare=lambda said: None, first=None, **env):
        self.args, self.said = [name, *arguments(args, settings)], tempfile.TemporaryDirectory()
        prepare(Path(self.said.name))
        self.process = WARM.Process(target=child, args=(name, self.args[1:], env, self.said.name, first))
        # read when torch is loaded
        with mock.patch.dict(os.environ, OMP_NUM_THREADS='1'): forkserver.ensure_running()
        self.process.start()

    def alive(self): return self.process.is_alive()

    def send(self, signum): os.kill(self.process.pid, signum)

    def until(self, happened, pause=.005):
        "Wait for something, as long as the process lives."
        while self.alive() and not happened(): time.sleep(pause)
        return self

    def wait(self, timeout=300):
        "The finished process, as `subprocess.run` gives it."
        self.process.join(timeout)
        if self.alive():
            self.process.kill()
            raise TimeoutError(f"{' '.join(self.args)}: not finished after {timeout} s")
        out, err = (Path(self.said.name)/name for name in ('stdout', 'stderr'))
        return subprocess.CompletedProcess(self.args, self.process.exitcode,
                                           *(p.read_text() if p.is_file() else '' for p in (out, err)))

    def kill(self):
        self.process.kill()
        return self.wait()


def steps(folder):
    "How many steps the journal of a run tells of."
    return (folder/'journal.jsonl').read_bytes().count(b'\n') if (folder/'journal.jsonl').exists() else 0


def bits(folder):
    "The bytes of the last checkpoint's weights and of the journal."
    last = json.loads((folder/'checkpoints.json').read_text())['last']
    weights = [p for name in ('model.safetensors', 'adapter_model.safetensors')
               if (p := folder/last/name).exists()]
    return weights[0].read_bytes(), (folder/'journal.jsonl').read_bytes()


def run(name, *args, **options):
    "A command from begin to end."
    return Running(name, *args, **options).wait()


def run_ranks(name, *args, settings=(), n=2, first=None):
    "A command in n processes of one group; what torchrun would start, without its imports."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = {'WORLD_SIZE': str(n), 'LOCAL_RANK': '0', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
    ranks = [Running(name, *args, settings=settings, first=first, RANK=str(rank), **env) for rank in range(n)]
    return [process.wait() for process in ranks]
