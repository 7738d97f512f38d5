"""Uploading with the real script: dry run, checklist, a stand-in for the client, what must never leave."""
import gzip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from wmtp.cli import guarded
from wmtp.core import file_sha256
from wmtp.runtime.checkpoint import verify_checkpoint, write_manifest

ROOT = Path(__file__).parents[1]
MICROCODE = ROOT/'storage'/'datasets'/'microcode'
PLACE = 'volume://vessl-storage/wmtp-test'
CLIENT = '''#!{python}
import pathlib, shutil, sys
with open({log!r}, 'a') as f: print(*sys.argv[1:], file=f)
if {fails}: sys.exit(3)
to = pathlib.Path({volume!r})/sys.argv[4].removeprefix('volume://')
to.mkdir(parents=True, exist_ok=True)
shutil.copy(sys.argv[3], to)
'''


@dataclass
class Done:
    "How the script ended."
    returncode:int
    stdout:str
    stderr:str


@pytest.fixture
def sync(monkeypatch, capsys):
    "The real script's main function, with nothing but `path` as PATH."
    monkeypatch.syspath_prepend(ROOT/'scripts')
    import sync_to_vessl_storage
    def call(*options, path='/nonexistent'):
        monkeypatch.setenv('PATH', str(path))
        code = guarded(sync_to_vessl_storage.make_parser(), sync_to_vessl_storage.sync, [*map(str, options)])
        return Done(code, *capsys.readouterr())
    return call


@pytest.fixture
def data(tmp_path):
    "A prepared data set of 60 rows."
    home, files = tmp_path/'data', {}
    home.mkdir()
    for name in ('train', 'valid', 'test', 'problems'):
        with gzip.open(MICROCODE/f'{name}.jsonl.gz') as f: text = b''.join(next(f) for _ in range(20))
        (home/f'{name}.jsonl.gz').write_bytes(gzip.compress(text, mtime=0))
        files[f'{name}.jsonl.gz'] = {'rows': 20, 'sha256': file_sha256(home/f'{name}.jsonl.gz')}
    (home/'metadata.json').write_text(json.dumps({'name': 'small', 'licence': 'Apache-2.0', 'files': files}))
    return home


@pytest.fixture
def run_folder(tmp_path):
    "A run with one checkpoint, as a pipeline leaves it."
    step = tmp_path/'run'/'step-000010'
    (step/'trainer').mkdir(parents=True)
    for name in ('model.safetensors', 'wmtp.json', 'trainer/optimizer.pt'): (step/name).write_text('{}')
    write_manifest(step)
    (step.parent/'run.yaml').write_text('runtime:\n  seed: 0\n')
    return step.parent


def client(folder, fails=False):
    "A folder with a stand-in for the vessl command: it copies into folder/volume and logs its calls."
    (folder/'bin').mkdir()
    text = CLIENT.format(python=sys.executable, log=str(folder/'calls'), volume=str(folder/'volume'),
                         fails=fails)
    (folder/'bin'/'vessl').write_text(text)
    (folder/'bin'/'vessl').chmod(0o755)
    return folder/'bin'


def test_a_dry_run_shows_all_and_sends_nothing(data, tmp_path, sync):
    (data/'train.jsonl.gz.index').mkdir()
    done = sync(data, PLACE, path=client(tmp_path))
    assert (done.returncode, done.stderr) == (0, '') and not (tmp_path/'calls').exists()
    files = sorted(path for path in data.iterdir() if path.is_file())
    for path, line in zip(files, done.stdout.splitlines()):
        assert line.split() == [file_sha256(path), f'{path.stat().st_size:,}', path.name]
        assert f'vessl storage copy-file {path} {PLACE}' in done.stdout
    assert 'left out: train.jsonl.gz.index' in done.stdout
    assert done.stdout.splitlines()[-1].startswith('nothing was sent')


def test_the_script_runs_by_itself_without_the_client(data):
    command = [sys.executable, str(ROOT/'scripts'/'sync_to_vessl_storage.py'), str(data), PLACE, '--go']
    done = subprocess.run(command, capture_output=True, text=True, timeout=300,
                          env=os.environ | {'PATH': '/nonexistent'})
    assert (done.returncode, done.stdout,
            done.stderr.count('\n')) == (2, '', 1) and 'the vessl command is missing' in done.stderr


def test_what_arrives_of_a_run_is_whole(run_folder, tmp_path, sync):
    done = sync(run_folder, f'{PLACE}/critic/', '--go', path=client(tmp_path))
    assert done.returncode == 0, done.stderr
    there = tmp_path/'volume'/'vessl-storage'/'wmtp-test'/'critic'
    assert sorted(path.relative_to(there).as_posix() for path in there.rglob('*') if path.is_file()) == [
        'SHA256SUMS', 'run.yaml', 'step-000010/manifest.json', 'step-000010/model.safetensors',
        'step-000010/wmtp.json']
    verify_checkpoint(there/'step-000010')
    verify_checkpoint(run_folder/'step-000010')  # the original still has its trainer/
    for line in (there/'SHA256SUMS').read_text().splitlines():
        assert file_sha256(there/line[66:]) == line[:64]
    assert done.stdout.splitlines()[-1] == '5 files were sent'


def test_the_checklist_names_every_point(data, sync):
    done = sync(data, PLACE, '--check')
    points = [line for line in done.stdout.splitlines() if not line.startswith(' ')]
    assert done.returncode == 0 and [line[0] for line in points] == [*'oolloooo', *'ll']
    readme = (ROOT/'storage'/'README.md').read_text()
    for line in points: assert f'**{line[6:]}**' in readme
    assert 'Apache-2.0' in done.stdout and PLACE in done.stdout


def spoil(data, what):
    "One thing that must not leave, planted in a folder."
    if what == 'rows': (data/'more.jsonl').write_text('{"is_correct": "yes", "output": 1}\n')
    if what == 'splits': shutil.copyfile(data/'test.jsonl.gz', data/'other.jsonl.gz')
    if what == 'secrets':
        (data/'run.yaml').write_text('tracking: https://user:hunter2hunter2@mlflow.example\n')
    if what == 'weights': (data/'model.bin').write_bytes(b'')
    if what == 'hashes': (data/'problems.jsonl.gz').unlink()
    if what == 'names': (data/'link').symlink_to(data/'metadata.json')


@pytest.mark.parametrize('what, message', [
    ('rows', 'more.jsonl:1'), ('splits', 'problem in two files'), ('secrets', 'run.yaml:1: a password in an '
                                                                              'address'),
    ('weights', 'model.bin: pickled'),
    ('hashes', 'problems.jsonl.gz: is missing'), ('names', 'link: a link or a special file')])
def test_one_planted_fault_is_named_and_stops_the_upload(what, message, data, tmp_path, sync):
    from wmtp.prepare.upload import POINTS
    spoil(data, what)
    done = sync(data, PLACE, '--check')
    point = next(line for line in done.stdout.splitlines() if line.startswith('NO'))
    assert done.returncode == 1 and point == f'NO    {POINTS[what]}.'
    assert message in done.stdout and 'hunter2' not in done.stdout
    done = sync(data, PLACE, '--go', path=client(tmp_path))
    assert done.returncode == 1 and 'REFUSED' in done.stdout and not (tmp_path/'calls').exists()


@pytest.mark.parametrize('options, message', [
    ([PLACE, '--go'], 'the vessl command is missing'), (['--go'], '--go needs a destination'),
    (['s3://bucket/x'], 'is no place in a volume'),
    ([PLACE, '--go', '--check'], 'give one of them')])
def test_what_cannot_be_done_is_one_line_and_exit_code_2(options, message, data, sync):
    done = sync(data, *options)
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (2, '', 1) and message in done.stderr


def test_a_missing_folder_is_one_line(tmp_path, sync):
    done = sync(tmp_path/'none', '--check')
    assert (done.returncode, done.stderr.count('\n')) == (2, 1) and 'not a folder' in done.stderr


def test_a_failing_client_ends_the_upload(data, tmp_path, sync):
    done = sync(data, PLACE, '--go', path=client(tmp_path, fails=True))
    assert done.returncode == 1 and 'failed with exit code 3 at file 1 of' in done.stderr
    assert len((tmp_path/'calls').read_text().splitlines()) == 1


def test_a_checkpoint_that_changed_is_refused(run_folder, sync):
    (run_folder/'step-000010'/'model.safetensors').write_text('{} ')
    done = sync(run_folder, PLACE)
    changed = 'step-000010/model.safetensors: has changed since the checkpoint was saved'
    assert done.returncode == 1 and changed in done.stdout
    assert json.loads((run_folder/'step-000010'/'manifest.json').read_text())['sha256']
