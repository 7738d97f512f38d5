"""A training run of a second, for the tests that kill processes.

`python tests/tiny_run.py` prints `ready`, reads one JSON request a line and forks the run (or one process per
rank) from a process that has torch loaded already; it replies with the process ids and, when all have ended,
with their exit codes.
"""
import json
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import transformers.optimization  # noqa: F401  loaded once, before the forks
from torch import nn

from wmtp.core import InputError, RunError
from wmtp.runtime.checkpoint import Checkpoints, load_weights, save_weights
from wmtp.runtime.distributed import leave_processes
from wmtp.runtime.interrupt import Interrupted, StopSignals
from wmtp.runtime.journal import Tracker
from wmtp.runtime.resume import prepare_run_folder
from wmtp.runtime.rehearsal import n_bytes
from wmtp.runtime.trainer import Trainer, resumed_rows
from wmtp.runtime.training_loop import LossOutput


def network(): return nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Dropout(.1), nn.Linear(64, 1))


@dataclass
class Points:
    x: torch.Tensor
    y: torch.Tensor
    attention_mask: torch.Tensor

    def to(self, device): return self


def points(n, poison=None, pause=0., n_batches=None):
    time.sleep(pause)
    if n_batches and n >= n_batches: return Points(torch.zeros(0, 1), torch.zeros(0, 1), torch.zeros(0, 1))
    g = torch.Generator().manual_seed(n)
    x = torch.rand(16, 1, generator=g) * 6
    y = x.sin() * (float('nan') if n == poison else 1.)
    return Points(x, y, (torch.rand(16, 1, generator=g) < .6).long())


def counts(batch, step): return {'mse': int(batch.attention_mask.sum()), 'size': len(batch.x)}


def loss(model, batch, step, denominators):
    out = model(batch.x)
    error = torch.where(batch.attention_mask.bool(), (out - batch.y).square(), 0.).sum()
    return LossOutput({'mse': (error, int(batch.attention_mask.sum())),
                       'size': (.01 * out.square().sum(), len(out))},
                      {'mean': (out.detach().sum().item(), len(out))})


def evaluate(model, step):
    batch = points(10**6)
    return {'valid/loss': (model(batch.x) - batch.x.sin()).square().mean()}


def signal_at_disk_operation(number, signum=signal.SIGKILL):
    "Send a signal just before the n-th fsync or rename: inside saves, before names, inside pruning."
    calls = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == number: os.kill(os.getpid(), signum)
            return function(*args, **kwargs)
        return call

    for name in ('fsync', 'rename', 'replace', 'unlink', 'rmdir'):
        setattr(os, name, counted(getattr(os, name)))


def limit_file_size(size):
    "No file may grow beyond `size` bytes: what a full disk looks like to those who write."
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def run(request, rank=0):
    torch.set_num_threads(1)
    if number := request.get('kill_at'): signal_at_disk_operation(number)
    if number := request.get('signal_at'): signal_at_disk_operation(number, request['signum'])
    n_ranks = request.get('ranks', 1)
    if n_ranks > 1:
        os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
        dist.init_process_group('gloo', init_method=f"file://{request['store']}", rank=rank,
                                world_size=n_ranks, timeout=timedelta(seconds=request.get('patience', 30)))
    folder = prepare_run_folder(request['folder'], request.get('resume')) if rank == 0 else None
    start = [folder and folder.checkpoint]
    if n_ranks > 1: dist.broadcast_object_list(start)
    torch.manual_seed(1)
    shard = bool(request.get('shard'))
    model = network()
    if start[0] and not shard: load_weights(model, start[0])
    if shard and rank: model = None

    def batch(n):
        if n == request.get('signal_in_batch'): os.kill(os.getpid(), request['signum'])
        if n == request.get('alone_in_batch'): dist.barrier()
        return points(n, request.get('poison'), request.get('pause', 0.), request.get('n_batches'))

    class FullAt(Checkpoints):
        def save(self, step, *args, **more):
            if step == request.get('disk_full_at'): limit_file_size(100)
            return super().save(step, *args, **more)

    path = Path(request['folder'])
    trainer = Trainer(
        model, loss, batch, counts,
        n_steps=40, n_batches=request.get('n_batches'), accumulation=request.get('accumulation', 2),
        learning_rate=1e-2, weight_decay=.01, lr_warmup_steps=5, evaluate=evaluate, eval_every_steps=10,
        save_every_steps=4, max_bad_steps=3, resume=start[0], stop=request.get('stop'), shard=shard,
        offload=bool(request.get('offload')),
        async_save=bool(request.get('async_save')),
        checkpoints=FullAt(path, lambda part: save_weights(model, part), keep=2),
        tracker=Tracker(path, n_rows=resumed_rows(start[0])) if rank == 0 else None)
    trainer.train()
    if shard: # what this rank holds of weights and moments
        held = n_bytes([*trainer.model.parameters(), *trainer.moments.values()])
        (path/f'held-{rank}').write_text(str(held))


def forked(request, rank):
    "Fork one process of the run; its exit code is the command line's."
    if pid := os.fork(): return pid
    code, message = 1, ''
    if request.get('nohup'): signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # to the end: a further signal while this one is reported must not change the exit code
    with StopSignals() as stop:
        try:
            with leave_processes(): run({**request, 'stop': stop}, rank)
            code = 0
        except Interrupted as e: code, message = 130, e
        except KeyboardInterrupt: code = 130
        except InputError as e: code, message = 2, e
        except RunError as e: message = e
        except Exception as e: message = f'{type(e).__name__}: {e}'  # noqa: BLE001  exit code 1, whatever it was
        finally:
            limit_file_size(resource.RLIM_INFINITY)
            print(message, file=sys.stderr, flush=True)
            os._exit(code)


if __name__ == '__main__':
    print('ready', flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        pids = [forked(request, rank) for rank in range(request.get('ranks', 1))]
        print(json.dumps(pids), flush=True)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)
    os._exit(0)  # nothing to tidy up
