"""A run ends well when the world around it does: signals, readers that leave, other alphabets."""
import gzip
import itertools
import json
import os
import random
import re
import signal
import sys
import threading
from functools import partial
from importlib import import_module
from pathlib import Path
from unittest import mock

import pytest
from commands import ROOT, Running, bits, run
from tiny import final_state

from wmtp.cli import ending
from wmtp.config import load
from wmtp.data.tokenizer import load_tokenizer
from wmtp.models.mtp import MetaLlamaMTPAdapter
from wmtp.pipelines.setup import tiny_settings

MICROCODE = ROOT/'storage'/'datasets'/'microcode'
SIGNALS = signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT
STEP = ('wmtp.runtime.trainer', 'Trainer', 'gradient')
DISK = ('os', 'rename')


def in_call(place, k, *signums, ignored=None):
    "Have the k-th call of a function send signals to its own process; one of them may be ignored."
    (module, *inner), calls = place[:-1], itertools.count(1)
    if ignored: signal.signal(ignored, signal.SIG_IGN)
    owner = import_module(module)
    for name in inner: owner = getattr(owner, name)
    function = getattr(owner, place[-1])

    def call(*args, **kwargs):
        if next(calls) == k:
            for signum in signums: os.kill(os.getpid(), signum)
        return function(*args, **kwargs)

    setattr(owner, place[-1], call)


def critic(folder, rows, *changes):
    "Settings of 8 steps that save every two."
    return tiny_settings('critic', folder, f'data.train={rows}', 'training.max_steps=8',
                         'training.eval_every_steps=8', 'training.lr_warmup_steps=2',
                         'training.tokens_per_batch=800', 'checkpoint.save_every_steps=2',
                         'checkpoint.keep=9', 'runtime.log_every_steps=1',
                         'models.value_model.hidden_size=32', 'models.value_model.n_layers=2',
                         'models.value_model.intermediate_size=64',
                         'critic.lm_layer=1', 'report.n_examples=2', *changes)


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    "A file of forty programs: Korean in the instructions, orders for a terminal in instruction and program."
    file = tmp_path_factory.mktemp('자료')/'행.jsonl'
    with gzip.open(MICROCODE/'test.jsonl.gz', 'rt', encoding='utf-8') as f:
        lines = [json.loads(line) for line in itertools.islice(f, 40)]
    for row in lines:
        row['instruction'] = '합계 🙂 \x1b[2J ' + row['instruction']
        row['output'] += '\n# \x1b]0;owned\x07\rSUCCESS\u202e\x9b2J'
    file.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in lines), encoding='utf-8')
    return file


@pytest.fixture(scope='module')
def whole(rows, tmp_path_factory):
    "An undisturbed run."
    folder = tmp_path_factory.mktemp('whole')/'run'
    done = run('critic', settings=critic(folder, rows))
    assert done.returncode == 0, done.stderr
    return folder, done


def steering(text):
    "The characters of a text that a terminal or a browser would obey."
    return {c for c in text if not c.isprintable() and c not in '\n\t'}


def test_orders_to_a_terminal_in_the_data_are_shown_and_not_obeyed(whole):
    folder, done = whole
    page = re.sub('<[^>]*>', '', (folder/'report.html').read_text(encoding='utf-8'))
    for text in (done.stdout, page):
        assert steering(text) == set() and '\\x1b[2J' in text and '합계 🙂' in text
        assert all(piece in text for piece in ('\\x1b]0;', '\\x07', '\\r', '\\u202e', '\\x9b'))


@pytest.fixture(scope='module')
def straight(server, tmp_path_factory):
    "The end of the uninterrupted run of `tiny_run.py`."
    folder = tmp_path_factory.mktemp('straight')/'run'
    assert server.run(folder) == 0
    return final_state(folder)


@pytest.mark.parametrize('signum', SIGNALS)
def test_a_signal_in_a_step_and_one_in_a_save(server, straight, tmp_path, signum):
    "Stopped at a random step, resumed, stopped inside a save, resumed: the same weights and journal."
    rng, folder = random.Random(int(signum)), tmp_path/'run'
    for place in ({'signal_in_batch': rng.randint(2, 30)}, {'signal_at': rng.randint(1, 40)}):
        assert server.run(folder, resume='auto', signum=signum, **place) == 130
        assert f'stopped by {signum.name} after step' in server.messages()
        last = json.loads((folder/'checkpoints.json').read_text())['last']
        journal = (folder/'journal.jsonl').read_bytes().splitlines()
        assert int(last.removeprefix('step-')) == json.loads(journal[-1])['step'] < 40
    assert server.run(folder, resume='auto') == 0
    assert final_state(folder) == straight


def test_under_nohup_a_closed_terminal_changes_nothing(server, straight, tmp_path):
    folder = tmp_path/'run'
    assert server.run(folder, nohup=True, signal_in_batch=9, signum=signal.SIGHUP) == 0
    assert final_state(folder) == straight


def test_a_closed_terminal_with_two_processes(server, tmp_path):
    "The terminal tells both, a scheduler perhaps one: both save after the same step."
    assert server.run(tmp_path/'whole', ranks=2) == [0, 0]
    for signum in (signal.SIGHUP, signal.SIGUSR1):
        folder = tmp_path/signum.name
        assert server.run(folder, ranks=2, signal_in_batch=13, signum=signum) == [130, 130]
        assert server.run(folder, ranks=2, resume='auto') == [0, 0]
        assert final_state(folder) == final_state(tmp_path/'whole')


def test_the_command_saves_when_its_terminal_closes(rows, whole, tmp_path):
    "HUP three times in a step; USR1 in a save; under nohup HUP is nothing: the end is that of the whole run."
    folder = tmp_path/'run'
    for place, k, *signums in ((STEP, 4, *[signal.SIGHUP] * 3), (DISK, 2, signal.SIGUSR1)):
        done = run('critic', '--resume', 'auto', settings=critic(folder, rows),
                   first=partial(in_call, place, k, *signums))
        assert done.returncode == 130, done.stderr
        assert done.stderr.startswith('wmtp_critic: stopped:') and done.stderr.count('\n') == 1
    done = run('critic', '--resume', 'auto', settings=critic(folder, rows),
               first=partial(in_call, STEP, 1, signal.SIGHUP, ignored=signal.SIGHUP))
    assert (done.returncode, bits(folder)) == (0, bits(whole[0])), done.stderr


def no_streams():
    "What Python finds under `>&- 2>&-`."
    for number in (1, 2): os.close(number)
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None


def ascii_terminal():
    "What Python makes of PYTHONIOENCODING=ascii."
    sys.stdout = sys.__stdout__ = open(1, 'w', encoding='ascii', closefd=False)
    sys.stderr = sys.__stderr__ = open(2, 'w', encoding='ascii', closefd=False)


def read_until(said, last):
    "Read a run's stdout from a pipe and leave after a line."
    with open(said/'stdout', encoding='utf-8', errors='replace') as pipe:
        while not next(pipe).startswith(last): pass


def reader_leaves(said):
    "Prepare a run whose stdout is a pipe that is closed in the middle, and whose stderr takes nothing."
    os.mkfifo(said/'stdout')
    (said/'stderr').symlink_to('/dev/full')
    threading.Thread(target=read_until, args=(said, 'step 4/8')).start()


def assert_as_if_somebody_looked(process, folder, whole):
    assert process.wait().returncode == 0
    assert bits(folder) == bits(whole[0])
    assert (folder/'report.html').read_bytes() == (whole[0]/'report.html').read_bytes()


def test_the_reader_leaves(rows, whole, tmp_path):
    "`| head` ends at a save, stderr goes to a full disk: the run goes on to its end."
    folder = tmp_path/'run'
    process = Running('critic', settings=critic(folder, rows), prepare=reader_leaves)
    assert_as_if_somebody_looked(process, folder, whole)


def test_nobody_ever_looked(rows, whole, tmp_path):
    process = Running('critic', settings=critic(tmp_path/'run', rows), first=no_streams)
    assert_as_if_somebody_looked(process, tmp_path/'run', whole)


def test_a_terminal_without_these_characters(rows, whole, tmp_path):
    "Korean and emoji on a terminal of ASCII: by their numbers, in data, names of folders and closing lines."
    process = Running('critic', settings=critic(tmp_path/'실행', rows), first=ascii_terminal)
    done = process.wait()
    assert done.returncode == 0 and done.stdout.isascii() and done.stderr == ''
    assert '\\ud569\\uacc4 \\U0001f642' in done.stdout and '\\uc2e4\\ud589/report.html' in done.stdout
    assert bits(tmp_path/'실행') == bits(whole[0])


MOMENTS = [('wmtp.pipelines.evaluate', 'write_unit'), ('os', 'replace'),
           ('wmtp.pipelines.evaluate', 'run_unit'), ('os', 'fsync'),
           ('wmtp.pipelines.evaluate', 'evaluation_summary')]


def evaluate(policy, folder):
    "Settings of an evaluation of four units."
    return tiny_settings('evaluate', folder, f'models.policy.checkpoint_path={policy}',
                         'benchmark.max_tasks=8', 'generation.batch_size=1',
                         'generation.max_new_tokens=20')


def test_an_evaluation_is_stopped_by_each_signal_and_goes_on(tmp_path):
    "While it writes, in a save, while programs run, and at the very end: resumed, the same bytes."
    tokenizer = load_tokenizer(MICROCODE/'tokenizer.model')
    MetaLlamaMTPAdapter.micro(tokenizer.vocab_size, 32, 2, 2, 64, 256, 2).save_pretrained(tmp_path/'policy')
    tokenizer.save(tmp_path/'policy')
    whole, folder = tmp_path/'whole', tmp_path/'run'
    done = run('evaluate', settings=evaluate(tmp_path/'policy', whole))
    assert done.returncode == 0, done.stderr
    for place, signum in zip(MOMENTS, SIGNALS):
        done = run('evaluate', '--resume', 'auto', settings=evaluate(tmp_path/'policy', folder),
                   first=partial(in_call, place, 1 + (place[0] == 'os'), signum))
        assert (done.returncode, done.stderr.count('\n')) == (130, 1), done.stderr
        assert not (folder/'summary.json').exists()
    done = run('evaluate', '--resume', 'auto', settings=evaluate(tmp_path/'policy', folder))
    assert done.returncode == 0, done.stderr
    for name in ('samples.jsonl', 'verdicts.jsonl', 'report.html'):
        assert (folder/name).read_bytes() == (whole/name).read_bytes()
    assert not list(folder.rglob('.part-*'))


def test_what_belongs_to_others_is_passed_over(tmp_path, monkeypatch):
    "A settings.ini in another alphabet, a folder, a circle of links, one that is closed; their configs/."
    folders = [tmp_path/name/'work' for name in ('utf16', 'cp949', 'folder', 'circle', 'closed')]
    for folder in folders: folder.mkdir(parents=True)
    for folder, encoding in zip(folders, ('utf-16', 'cp949')):
        (folder.parent/'settings.ini').write_text('[server]\nname = 설정\n', encoding=encoding)
    (folders[2].parent/'settings.ini').mkdir()
    (folders[3].parent/'settings.ini').symlink_to('settings.ini')
    for folder in folders[:4]:
        monkeypatch.chdir(folder)
        assert load.project_root() == ROOT
    monkeypatch.chdir(folders[4])
    with monkeypatch.context() as patch:
        patch.setattr(Path, 'read_bytes', mock.Mock(side_effect=PermissionError))
        assert load.find_checkout(folders[4]) is None
    (folders[4]/'configs').mkdir()
    (folders[4]/'configs'/'defaults.yaml').write_text('theirs: 1\n')
    monkeypatch.setattr(load, 'project_root', Path.cwd)
    assert load.config_folder() == ROOT/'wmtp'/'configs'


def test_a_name_that_the_locale_cannot_write_is_one_line(monkeypatch):
    error = UnicodeEncodeError('latin-1', '/data/실험', 6, 8, 'ordinal not in range(256)')
    assert ending(error)[1] == 1
    monkeypatch.setattr(sys, 'getfilesystemencoding', lambda: 'iso8859-1')
    word, code, line = ending(error)
    assert (word, code) == ('error', 2) and line.endswith('of this locale, iso8859-1; set PYTHONUTF8=1')
