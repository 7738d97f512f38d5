"""Two processes on the CPU (gloo) make the run that one process makes."""
import json
import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import commands
import pytest
import torch
from safetensors.torch import load_file
from tiny import final_state, send, wait_for
from tiny_run import counts, loss, network, points

from wmtp.pipelines.setup import tiny_settings
from wmtp.runtime.checkpoint import step_folders
from wmtp.runtime.rehearsal import rehearse_step


def weights(folder): return load_file(folder/'step-000040'/'model.safetensors')


def rows(folder): return [json.loads(line) for line in (folder/'journal.jsonl').read_text().splitlines()]


def assert_close_runs(a, b):
    "First gradient to 1e-6; later steps drift by rounding only."
    first, other = rows(a)[0], rows(b)[0]
    assert first.keys() == other.keys()
    for name in first: assert abs(first[name] - other[name]) < 1e-6, name
    for name, w in weights(a).items(): torch.testing.assert_close(w, weights(b)[name], atol=1e-5, rtol=0)


@pytest.fixture(scope='module')
def two_ranks(server, tmp_path_factory):
    "The uninterrupted run of two processes."
    folder = tmp_path_factory.mktemp('two')/'run'
    assert server.run(folder, ranks=2) == [0, 0]
    return folder


def test_two_ranks_make_the_same_run(server, two_ranks, tmp_path):
    "1 rank x 4 micro-batches and 2 x 2, dropout included: loss, metrics and gradient norm of step 1 to 1e-6."
    assert server.run(tmp_path/'one', accumulation=4) == 0
    assert_close_runs(tmp_path/'one', two_ranks)
    assert [r['step'] for r in rows(tmp_path/'one')] == [r['step'] for r in rows(two_ranks)]


def test_uneven_last_window(server, tmp_path):
    "157 micro-batches: in the 40th step one rank has a single one and the other none; both make 40 steps."
    assert server.run(tmp_path/'one', accumulation=4, n_batches=157) == 0
    assert server.run(tmp_path/'two', accumulation=2, n_batches=157, ranks=2) == [0, 0]
    assert_close_runs(tmp_path/'one', tmp_path/'two')


def test_nan_on_one_rank(server, tmp_path):
    "Micro-batch 21 is rank 1's: both skip step 6, and the weights are those of one process that skipped it."
    assert server.run(tmp_path/'one', accumulation=4, poison=21) == 0
    assert server.run(tmp_path/'two', accumulation=2, poison=21, ranks=2) == [0, 0]
    for run in 'one', 'two':
        assert [r['train/bad_steps'] for r in rows(tmp_path/run)[:7]] == [0, 0, 0, 0, 0, 1, 1]
        assert rows(tmp_path/run)[5]['train/loss'] == 'NaN'
    assert_close_runs(tmp_path/'one', tmp_path/'two')


def test_one_rank_is_asked_to_stop(server, two_ranks, tmp_path):
    "SIGTERM reaches rank 1 only: both save after the same step; resumed, they end as if uninterrupted."
    folder = tmp_path/'run'

    def ask(pids):
        wait_for(folder/'step-000004')
        send(pids[1], signal.SIGTERM)

    assert server.run(folder, ranks=2, meanwhile=ask, pause=.02) == [130, 130]
    assert server.run(folder, ranks=2, resume='auto') == [0, 0]
    assert final_state(folder) == final_state(two_ranks)


def test_a_rank_dies(server, tmp_path):
    "Rank 1 is killed: rank 0 ends with an error within seconds; the run resumes, but not on one rank."
    folder, died = tmp_path/'run', []

    def kill(pids):
        wait_for(folder/'step-000004')
        send(pids[1], signal.SIGKILL)
        died.append(time.monotonic())

    codes = server.run(folder, ranks=2, meanwhile=kill, pause=.02)
    assert codes[0] == 1 and codes[1] == -signal.SIGKILL
    assert time.monotonic() - died[0] < 10
    assert server.run(folder, resume='auto') == 2
    assert 'was made with n_ranks 2, this run has 1; use the same' in server.messages()
    assert server.run(folder, ranks=2, resume='auto') == [0, 0]


@pytest.mark.parametrize('shard', [False, True])
def test_a_collective_that_one_rank_comes_to_alone(server, shard, tmp_path):
    "Rank 1, in micro-batch 21: with a patience of 4 seconds nobody waits for ever, and both say why."
    began = time.monotonic()
    assert server.run(tmp_path/'run', ranks=2, shard=shard, alone_in_batch=21, patience=4) == [1, 1]
    assert time.monotonic() - began < 120 # gloo itself would wait for half an hour
    assert server.messages().count('another rank has ended or did not come') == 2
    assert [*step_folders(tmp_path/'run')] == [4]


def on_its_own_disk(disks):
    "What /proc/self/cwd leads to differs between ranks."
    os.chdir(disks/f"rank{os.environ['RANK']}")


@pytest.mark.parametrize('shard, sees', [('none', 'no whole checkpoint'), ('full', 'step 2, manifest')])
def test_ranks_that_see_different_checkpoints(shard, sees, tmp_path):
    "Where rank 0 sees step 4, rank 1 sees nothing, or an older one: both refuse with the same line."
    settings = tiny_settings('critic', tmp_path/'rank0'/'run', f'runtime.shard={shard}',
                             'checkpoint.save_every_steps=2')
    assert [done.returncode for done in commands.run_ranks('critic', settings=settings)] == [0, 0]
    shutil.copytree(tmp_path/'rank0', tmp_path/'rank1')
    shutil.rmtree(tmp_path/'rank1'/'run'/'step-000004')
    if shard == 'full': (tmp_path/'rank1'/'run'/'step-000002').rename(tmp_path/'rank1'/'run'/'step-000004')
    both = commands.run_ranks('critic', '--resume', 'auto', first=partial(on_its_own_disk, tmp_path),
                              settings=tiny_settings('critic', '/proc/self/cwd/run', *settings[-2:]))
    assert [(done.returncode, done.stderr.count('\n')) for done in both] == [(2, 1)] * 2, both
    for done in both: assert f', rank 1 {sees}' in done.stderr and 'rank 0 sees step 4' in done.stderr
    assert [*step_folders(tmp_path/'rank0'/'run')] == [2, 4]


@pytest.mark.parametrize('shard', ['full', 'none'])
def test_ranks_that_write_to_different_disks(shard, tmp_path):
    "In shares all ranks refuse before the first step; where rank 0 alone writes, nothing is wrong."
    for rank in 'rank0', 'rank1': (tmp_path/rank).mkdir()
    settings = tiny_settings('critic', '/proc/self/cwd/run', f'runtime.shard={shard}')
    both = commands.run_ranks('critic', first=partial(on_its_own_disk, tmp_path), settings=settings)
    assert [done.returncode for done in both] == [2 if shard == 'full' else 0] * 2, both
    assert [*(tmp_path/'rank1').iterdir()] == []
    if shard == 'none': return
    for done in both:
        assert done.stderr.count('\n') == 1 and 'rank 1 does not see what rank 0 made' in done.stderr
    assert [path.name for path in (tmp_path/'rank0'/'run').iterdir()] == ['.wmtp.lock']


LEFT_BEHIND = {"WORLD_SIZE is '2'": {'WORLD_SIZE': '2'}, "WORLD_SIZE is ''": {'WORLD_SIZE': ''},
               "WORLD_SIZE is 'two'": {'WORLD_SIZE': 'two'},
               "RANK is '2'": {'WORLD_SIZE': '2', 'RANK': '2'},
               "SLURM_STEP_NUM_TASKS is '2'": {'SLURM_STEP_NUM_TASKS': '2', 'SLURM_PROCID': '1'}}


@pytest.mark.parametrize('fault', LEFT_BEHIND)
def test_a_launcher_that_left_something_behind_is_one_line(fault, tmp_path):
    "Not a hang: exit code 2, and the variable is named."
    name = 'evaluate' if 'two' in fault else 'critic'
    given = [f'models.policy.checkpoint_path={tmp_path}'] if name == 'evaluate' else []
    done = commands.run(name, settings=tiny_settings(name, tmp_path/'run', *given), **LEFT_BEHIND[fault])
    assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
    assert fault in done.stderr and 'unset' in done.stderr and 'torchrun' in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_who_waits_for_others_says_so_and_can_be_stopped(tmp_path):
    env = {'WORLD_SIZE': '2', 'RANK': '1', 'LOCAL_RANK': '1', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': '1'}
    alone = commands.Running('critic', settings=tiny_settings('critic', tmp_path/'run'), **env)
    printed = Path(alone.said.name)/'stdout'
    alone.until(lambda: printed.exists() and 'waiting' in printed.read_text())
    assert 'waiting for 2 processes to meet at 127.0.0.1:1; this is rank 1. If nobody' in printed.read_text()
    alone.send(signal.SIGTERM)
    done = alone.wait(10)
    assert done.returncode == 130 and 'Traceback' not in done.stderr


@pytest.fixture(scope='module')
def shares(server, tmp_path_factory):
    "The uninterrupted run of two processes with a share each; its last window has a single micro-batch."
    folder = tmp_path_factory.mktemp('shares')/'run'
    assert server.run(folder, ranks=2, n_batches=157, shard=True) == [0, 0], server.messages()
    return folder


def test_shares_make_the_same_run(server, shares, tmp_path):
    assert server.run(tmp_path/'one', accumulation=4, n_batches=157) == 0
    assert_close_runs(tmp_path/'one', shares)


def test_shares_in_the_memory_of_the_machine(server, shares, tmp_path):
    "Stopped and resumed, its losses, weights and moments are to the bit those without `offload`."
    folder, run = tmp_path/'run', {'ranks': 2, 'n_batches': 157, 'shard': True, 'offload': True}

    def ask(pids):
        wait_for(folder/'step-000004')
        send(pids[1], signal.SIGTERM)

    assert server.run(folder, **run, meanwhile=ask, pause=.02) == [130, 130], server.messages()
    assert server.run(folder, **run, resume='auto') == [0, 0], server.messages()
    assert final_state(folder) == final_state(shares)


def test_whole_weights_are_of_the_best_and_the_last_alone(shares):
    for step, folder in step_folders(shares).items():
        assert (folder/'model.safetensors').exists() == (step in (10, 20, 30, 40)), step
        assert len([*(folder/'trainer'/'shares').iterdir()]) == 2


def test_killed_while_a_save_is_written(server, shares, tmp_path):
    "Rank 0, at a disk operation in the background: the rest goes, and the run ends as if uninterrupted."
    folder, run = tmp_path/'run', {'ranks': 2, 'n_batches': 157, 'shard': True, 'async_save': True}
    assert server.run(folder, **run, kill_at=26)[0] == -signal.SIGKILL
    assert (folder/'.part-step-000008').exists() and [*step_folders(folder)] == [4]
    assert server.run(folder, **run, resume='auto') == [0, 0]
    assert not [*folder.glob('.part-step-*')] and final_state(folder) == final_state(shares)


def test_a_rank_holds_what_a_rehearsal_says(shares):
    "Weights and moments of two processes that exist, beside one of two that were made up."
    with torch.device('meta'): blank = network()
    said = rehearse_step(blank, loss, counts, points(0), n_ranks=2)
    held = [int((shares/f'held-{rank}').read_text()) for rank in (0, 1)]
    assert abs(held[0] / (said['model'] + said['AdamW']) - 1) < .05 and held[1] <= held[0]


def test_nan_on_one_rank_of_a_sharded_run(server, tmp_path):
    "All skip step 6; the weights are those of one process that skipped it."
    assert server.run(tmp_path/'one', accumulation=4, poison=21) == 0
    assert server.run(tmp_path/'two', poison=21, ranks=2, shard=True) == [0, 0]
    assert [r['train/bad_steps'] for r in rows(tmp_path/'two')[:7]] == [0, 0, 0, 0, 0, 1, 1]
    assert_close_runs(tmp_path/'one', tmp_path/'two')


@pytest.mark.parametrize('async_save', [False, True])
def test_a_sharded_run_is_stopped_and_finds_its_disk_full(server, shares, async_save, tmp_path):
    "SIGTERM to rank 1, then no room on rank 0: resumed each time, it ends bit for bit as if uninterrupted."
    folder, run = tmp_path/'run', {'ranks': 2, 'n_batches': 157, 'shard': True, 'async_save': async_save}

    def ask(pids):
        wait_for(folder/'step-000004')
        send(pids[1], signal.SIGTERM)

    assert server.run(folder, **run, meanwhile=ask, pause=.02) == [130, 130]
    full = 4 * (max(step_folders(folder)) // 4 + 2)
    codes = server.run(folder, **run, resume='auto', disk_full_at=full)
    assert codes[0] == 1 and codes[1] != 0 and 'could not write' in server.messages()
    assert full not in step_folders(folder)
    assert server.run(folder, **run, resume='auto') == [0, 0]
    assert final_state(folder) == final_state(shares)


def test_a_rank_of_a_sharded_run_dies_and_one_process_goes_on(server, shares, tmp_path):
    "Killed, on one process, and on two again: the same micro-batches, weights within rounding."
    folder, run = tmp_path/'run', {'n_batches': 157, 'shard': True, 'async_save': True}

    def kill(pids):
        wait_for(folder/'step-000004')
        send(pids[1], signal.SIGKILL)

    def stop(pids):
        wait_for(folder/'step-000016')
        send(pids[0], signal.SIGTERM)

    codes = server.run(folder, **run, ranks=2, meanwhile=kill, pause=.02)
    assert codes[0] == 1 and codes[1] == -signal.SIGKILL
    assert server.run(folder, **run, resume='auto') == 2
    assert 'was made with micro-batches a step 4, this run has 2; use the same' in server.messages()
    assert server.run(folder, **run, accumulation=4, resume='auto', meanwhile=stop, pause=.01) == 130
    assert server.run(folder, **run, ranks=2, resume='auto') == [0, 0]
    assert_close_runs(folder, shares)
