"""A run that was killed, stopped or short of disk ends exactly like one that was not."""
import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny import final_state, send, wait_for

from wmtp.runtime.checkpoint import step_folders, verify_checkpoint


class Straight(NamedTuple):
    folder: Path
    state: list
    seconds: float


@pytest.fixture(scope='module')
def straight(server, tmp_path_factory):
    "The uninterrupted run, and how long it takes."
    folder = tmp_path_factory.mktemp('straight')/'run'
    began = time.monotonic()
    assert server.run(folder) == 0
    return Straight(folder, final_state(folder), time.monotonic() - began)


def assert_whole(folder):
    "Every checkpoint with its final name is whole, and nothing half-made is left."
    for path in step_folders(folder).values(): verify_checkpoint(path)
    assert [p.name for p in folder.iterdir() if p.name.startswith('.')] == ['.wmtp.lock']


def test_same_seed_same_bits(server, straight, tmp_path):
    assert server.run(tmp_path/'run') == 0
    assert final_state(tmp_path/'run') == straight.state


@pytest.mark.parametrize('seed', range(10))
def test_sigkill_and_resume(server, straight, tmp_path, seed):
    "Killed at a random disk operation (mostly in a save) and at a random time, then finished: bit-identical."
    rng, folder = random.Random(seed), tmp_path/'run'
    assert server.run(folder, resume='auto', kill_at=rng.randint(2, 250)) == -signal.SIGKILL
    after = rng.uniform(.05, .5) * straight.seconds
    server.run(folder, resume='auto', meanwhile=lambda pids: send(pids[0], signal.SIGKILL, after=after))
    for path in step_folders(folder).values(): verify_checkpoint(path)
    assert server.run(folder, resume='auto') == 0
    assert final_state(folder) == straight.state
    assert_whole(folder)


def test_kill_at_every_disk_operation_of_a_save(server, straight, tmp_path):
    "Operation by operation: through the first save of a run and through one that prunes; then it finishes."
    folder = tmp_path/'run'
    first = [server.run(folder, resume='auto', kill_at=n) for n in range(1, 25)]
    server.run(folder, resume='auto', kill_at=90)
    later = [server.run(folder, resume='auto', kill_at=n) for n in range(1, 36)]
    assert set(first + later) == {-signal.SIGKILL}
    assert server.run(folder, resume='auto') == 0
    assert final_state(folder) == straight.state
    assert_whole(folder)


@pytest.mark.parametrize('signals', [[signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM] * 2])
def test_asked_to_stop(server, straight, tmp_path, signals):
    "Saved within seconds, exit code 130, resumable; also when asked twice."
    folder, ended = tmp_path/'run', []

    def ask(pids):
        wait_for(folder/'step-000004')
        ended.append(time.monotonic())
        send(pids[0], *signals, pause=.002)

    assert server.run(folder, meanwhile=ask, pause=.02) == 130
    assert time.monotonic() - ended[0] < 10
    last = json.loads((folder/'checkpoints.json').read_text())['last']
    rows = [json.loads(line) for line in (folder/'journal.jsonl').read_text().splitlines()]
    assert int(last.removeprefix('step-')) == rows[-1]['step'] < 40
    verify_checkpoint(folder/last)
    assert server.run(folder, resume='auto') == 0
    assert final_state(folder) == straight.state


def test_three_signals_end_at_once(server, straight, tmp_path):
    "No time even to save: what is on the disk is whole, and the run can go on."
    folder = tmp_path/'run'

    def insist(pids):
        wait_for(folder/'step-000004')
        send(pids[0], *[signal.SIGTERM] * 3, pause=.0005)

    assert server.run(folder, meanwhile=insist, pause=.02) == 130
    assert server.run(folder, resume='auto') == 0
    assert final_state(folder) == straight.state


def test_remains_of_a_kill_at_the_very_end_are_removed(server, straight, tmp_path):
    "Killed while pruning after the last save: the next run has nothing to save, and tidies up all the same."
    folder = shutil.copytree(straight.folder, tmp_path/'run')
    (folder/'.gone-step-000032').mkdir()
    assert server.run(folder, resume='auto') == 0
    assert final_state(folder) == straight.state
    assert_whole(folder)


def test_no_space_for_a_save(server, straight, tmp_path):
    "A save that cannot write ends the run with exit code 1; the one before is whole, and resumes with space."
    folder = tmp_path/'run'
    assert server.run(folder, disk_full_at=12) == 1
    assert 'checkpoints saved before it are untouched' in server.messages()
    assert max(step_folders(folder)) == 10
    assert_whole(folder)
    assert server.run(folder, resume='auto') == 0
    assert final_state(folder) == straight.state


def test_damaged_last_checkpoint(server, straight, tmp_path):
    "A flipped bit in the last checkpoint: the one before is used, the damaged one kept, the end the same."
    folder = tmp_path/'run'
    assert server.run(folder, disk_full_at=20) == 1
    weights = folder/'step-000016'/'model.safetensors'
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    assert server.run(folder, resume='auto') == 0
    assert (folder/'step-000016.1').exists()
    assert final_state(folder) == straight.state


def test_fresh_run_moves_the_earlier_one_aside(server, straight, tmp_path):
    folder = shutil.copytree(straight.folder, tmp_path/'run')
    assert server.run(folder) == 0
    assert final_state(folder) == final_state(tmp_path/'run.1') == straight.state


def test_another_shape_is_refused(server, tmp_path):
    folder = tmp_path/'run'
    assert server.run(folder, disk_full_at=8) == 1
    assert server.run(folder, resume='auto', accumulation=3) == 2
    assert 'was made with accumulation 2, this run has 3; use the same' in server.messages()
