"""The index beside a data file: the rows of `read_rows` on every fixture, changes, processes that die."""
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from wmtp.core import InputError
from wmtp.rows.index import open_index
from wmtp.data.schema import read_rows
from wmtp.data.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[1]
MICROCODE = ROOT/'storage'/'datasets'/'microcode'
REAL = os.environ.get('WMTP_REAL_DATA')
FIXTURES = sorted(json.loads((Path(REAL)/'fixtures'/'manifest.json').read_text())) if REAL else []
OPEN = """
import sys
from wmtp.rows.index import open_index
index = open_index(sys.argv[1], log=print)
print(len(index), index.report.sha256)
"""


@pytest.fixture
def lines():
    "Two hundred lines of the embedded data set."
    with gzip.open(MICROCODE/'valid.jsonl.gz') as f: return [next(f) for _ in range(200)]


@pytest.fixture
def data(lines, tmp_path):
    "Those lines as a file."
    (tmp_path/'rows.jsonl').write_bytes(b''.join(lines))
    return tmp_path/'rows.jsonl'


def attempt(work):
    "What came, or the message of the error that came instead."
    try: return work()
    except InputError as e: return str(e)


@pytest.mark.skipif(not REAL, reason='WMTP_REAL_DATA is unset: no fixtures to read')
@pytest.mark.parametrize('name', FIXTURES or ['none'])
@pytest.mark.parametrize('on_bad_row', ['error', 'skip'])
def test_rows_and_messages_are_those_of_read_rows(name, on_bad_row, tmp_path):
    path = shutil.copyfile(Path(REAL)/'fixtures'/name, tmp_path/name)
    expected = attempt(lambda: read_rows(path, on_bad_row))
    index = attempt(lambda: open_index(path, on_bad_row, every_row=True))
    if isinstance(expected, str): assert index == expected
    else: assert (index.rows(range(len(index))), asdict(index.report)) == (expected[0], asdict(expected[1]))
    # without `every_row` texts are looked at when a row is read: what is kept beyond that is refused then
    quick = attempt(lambda: open_index(path, on_bad_row, index_dir=tmp_path/'quick'))
    if isinstance(quick, str): assert quick == expected
    else:
        rows = [row for i in range(len(quick)) if isinstance(row := attempt(lambda: quick[i]), dict)]
        if isinstance(expected, str): assert len(rows) < len(quick)
        else: assert rows == expected[0]


@pytest.mark.skipif(not REAL, reason='WMTP_REAL_DATA is unset: no fixtures to read')
def test_there_are_fixtures(): assert len(FIXTURES) == 21


BEGIN = b'{"instruction": "'
SMALL = [b'\n', b'x', b'{}\n', b'{}\n' * 20, b'1234567\n', BEGIN[:8] + b'\n', BEGIN, BEGIN + b'\n',
         BEGIN + b'a\n', BEGIN + b'a' * 40 + b'"}}\n']


@pytest.mark.parametrize('text', SMALL)
def test_a_file_smaller_than_a_row_is_one_line(text, tmp_path):
    path = tmp_path/'rows.jsonl'
    path.write_bytes(text)
    for on_bad_row in ('error', 'skip'):
        assert attempt(lambda: open_index(path, on_bad_row)) == attempt(lambda: read_rows(path, on_bad_row))
    assert os.listdir(tmp_path) == ['rows.jsonl']


@pytest.mark.parametrize('packed', [False, True])
def test_plain_and_packed_files_and_their_bad_rows(packed, lines, tmp_path):
    lines[7], lines[30] = b'{"instruction": "cut sho\n', lines[3]
    path = tmp_path/('rows.jsonl' + '.gz' * packed)
    path.write_bytes(gzip.compress(b''.join(lines)) if packed else b''.join(lines))
    for every_row in (False, True):
        with pytest.raises(InputError, match=rf'{path.name}:8: not JSON'):
            open_index(path, every_row=every_row)
        index, (rows, report) = open_index(path, 'skip', every_row), read_rows(path, 'skip')
        assert (index.rows(range(len(index))),
                asdict(index.report)) == (rows, asdict(report)) and report.n_skipped == 2
        assert index.lines[:8].tolist() == [1, 2, 3, 4, 5, 6, 7, 9]


def test_an_index_is_made_anew_only_for_a_reason(data, lines):
    log = []
    def opened(**options): return open_index(data, log=log.append, **options)
    opened()
    before = (data.parent/'rows.jsonl.index'/'about.json').stat().st_mtime_ns
    opened()
    assert (data.parent/'rows.jsonl.index'/'about.json').stat().st_mtime_ns == before
    data.write_bytes(b''.join(lines[:100]))
    assert len(opened()) == 100
    data.write_bytes(data.read_bytes().replace(b'return', b'retur_', 1))  # as long as before
    opened()
    opened(on_bad_row='skip')
    for name in ('starts.npy', 'names.json'):
        file = data.parent/'rows.jsonl.index'/name
        file.write_bytes(file.read_bytes()[:-1])
        opened(on_bad_row='skip')
    (data.parent/'rows.jsonl.index'/'lines.npy').unlink()
    assert opened(on_bad_row='skip').rows([99]) == read_rows(data)[0][99:]
    reasons = [line.split('(')[1].split(')')[0] for line in log]
    assert reasons == ['there was none', 'the data has changed', 'the data has changed',
                       'it was made with on_bad_row error',
                       'starts.npy is damaged', 'names.json is damaged', 'lines.npy is damaged']


ODD = ['', '[]', '{}', '{"version": 2}', 'null',
       '{"version": 2, "on_bad_row": "error", "every_row": false, "report": 3}']


@pytest.mark.parametrize('text', ODD)
def test_a_damaged_description_is_made_anew(text, data):
    open_index(data)
    (data.parent/'rows.jsonl.index'/'about.json').write_text(text)
    log = []
    assert len(open_index(data, log=log.append)) == 200 and len(log) == 1


def test_a_file_in_place_of_the_index_is_one_line(data):
    (data.parent/'rows.jsonl.index').write_text('mine')
    with pytest.raises(InputError, match='no index can be written here|is not an index'): open_index(data)
    assert (data.parent/'rows.jsonl.index').read_text() == 'mine'


def test_a_file_that_changes_under_an_open_index_is_noticed(data, lines):
    index = open_index(data)
    with data.open('r+b') as f: f.write(lines[1])  # the first row's place now holds another row
    with pytest.raises(InputError): index.rows(range(200))


def test_an_index_may_lie_elsewhere_and_a_folder_that_is_missing_is_made(data, tmp_path):
    index = open_index(data, index_dir=tmp_path/'a'/'b')
    assert index.folder == tmp_path/'a'/'b'/'rows.jsonl.index'
    assert sorted(os.listdir(tmp_path)) == ['a', 'rows.jsonl']


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which('setpriv'),
                    reason='root may write anywhere, and there is no setpriv')
def test_a_folder_that_cannot_be_written_is_one_line_and_an_index_needs_no_writing(data, tmp_path):
    drop = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] if os.geteuid() == 0 else []
    for folder in (tmp_path, *tmp_path.parents[:3]):  # pytest's own, which others may not enter
        if folder.name.startswith(('pytest-', 'popen-', 'test_')): folder.chmod(0o755)
    def as_nobody():
        return subprocess.run([*drop, sys.executable, '-c', OPEN, str(data)], capture_output=True, text=True)
    if os.geteuid(): tmp_path.chmod(0o555)
    done = as_nobody()
    if 'No module named' in done.stderr or 'failed to execute' in done.stderr:
        pytest.skip('another user may not read this Python')
    assert 'no index can be written here (Permission denied)' in done.stderr
    assert os.listdir(tmp_path) == ['rows.jsonl']
    tmp_path.chmod(0o755)
    open_index(data)
    if os.geteuid(): tmp_path.chmod(0o555)
    assert as_nobody().stdout.split()[0] == '200'
    tmp_path.chmod(0o755)


def test_lengths_that_cannot_be_written_are_counted_at_each_start(data, monkeypatch):
    index, tokenizer, log = open_index(data), load_tokenizer(MICROCODE/'tokenizer.model'), []
    def refuse(*paths): raise OSError(30, 'Read-only file system')
    with monkeypatch.context() as m:
        m.setattr(os, 'replace', refuse)
        lengths = index.lengths(tokenizer, log.append)
    assert 'cannot be written (Read-only file system)' in log[1] and 'data.index_dir' in log[1]
    assert (index.lengths(tokenizer, log.append) == lengths).all() and len(log) == 3  # again, and kept
    assert (index.lengths(tokenizer, log.append) == lengths).all() and len(log) == 3
    stored, = index.folder.glob('lengths-*')
    stored.write_bytes(bytes(4) + stored.read_bytes()[4:])  # a damaged file is no file
    assert (index.lengths(tokenizer, log.append) == lengths).all() and len(log) == 4


@contextmanager
def somebody_else():
    "Another user, in this process."
    if os.geteuid(): pytest.skip('only root can take the place of somebody else')
    os.seteuid(65534)
    try: yield
    finally: os.seteuid(0)


@pytest.fixture
def shared(lines):
    "The lines in a folder that everybody may enter and only root may write, with their index."
    with tempfile.TemporaryDirectory(dir='/tmp') as folder:
        os.chmod(folder, 0o755)
        (Path(folder)/'rows.jsonl').write_bytes(b''.join(lines))
        open_index(Path(folder)/'rows.jsonl')
        yield Path(folder)/'rows.jsonl'


LOCKED = { # what root locks in the folder of `shared` -> what the other user reads
    '.': 'rows.jsonl: cannot be read (Permission denied)', 'rows.jsonl': 'cannot be read (Permission denied)',
    'rows.jsonl.index': 'no index can be written here (Permission denied), and one is needed (it is damaged)',
    'rows.jsonl.index/about.json': 'one is needed (it is damaged)',
    'rows.jsonl.index/starts.npy': 'one is needed (it is damaged)'}


@pytest.mark.parametrize('name', LOCKED)
def test_what_somebody_else_has_locked_is_one_line(name, shared):
    os.chmod(shared.parent/name, 0o700 if (shared.parent/name).is_dir() else 0o600)
    with somebody_else(): message = attempt(lambda: open_index(shared))
    assert LOCKED[name] in message and '\n' not in message
    os.chmod(shared.parent/name, 0o755)
    with somebody_else(): assert len(open_index(shared)) == 200


def test_lengths_that_somebody_else_has_locked_are_counted(shared):
    tokenizer = load_tokenizer(MICROCODE/'tokenizer.model')
    lengths, log = open_index(shared).lengths(tokenizer), []
    stored, = shared.parent.glob('*.index/lengths-*')
    os.chmod(stored, 0o600)
    with somebody_else(): assert (open_index(shared).lengths(tokenizer, log.append) == lengths).all()
    assert 'cannot be written (Permission denied)' in log[1]
    stored.unlink()
    stored.mkdir()
    assert (open_index(shared).lengths(tokenizer) == lengths).all()
    assert not [*shared.parent.glob('*.index/.part-*')]


def test_a_read_only_disk_needs_an_index_that_fits(shared, tmp_path):
    mount = tmp_path/'mount'
    mount.mkdir()
    bind = ['mount', '--bind', shared.parent, mount]
    if os.geteuid() or subprocess.run(bind, capture_output=True).returncode:
        pytest.skip('nothing can be mounted here')
    try:
        subprocess.run(['mount', '-o', 'remount,ro,bind', mount], check=True)
        data, log = mount/'rows.jsonl', []
        index = open_index(data)
        assert len(index.lengths(load_tokenizer(MICROCODE/'tokenizer.model'), log.append)) == 200
        assert 'cannot be written (Read-only file system)' in log[1]
        with pytest.raises(InputError, match='Read-only file system.*it was made with on_bad_row error'):
            open_index(data, on_bad_row='skip')
        assert len(open_index(data, on_bad_row='skip', index_dir=tmp_path/'index')) == 200
        (shared.parent/'rows.jsonl.index'/'about.json').unlink()  # half of it is written
        with pytest.raises(InputError, match='Read-only file system.*it is damaged'): open_index(data)
    finally: subprocess.run(['umount', '-l', mount], check=True)  # the index has files open


def test_a_lock_that_another_machine_has_left_stops_nobody(data):
    (data.parent/'.lock-rows.jsonl.index').write_text('node7')
    assert len(open_index(data)) == 200
    assert sorted(os.listdir(data.parent)) == ['rows.jsonl', 'rows.jsonl.index']


@pytest.mark.parametrize('index_dir', ['y' * 300, 'rows.jsonl', 'rows.jsonl/below'])
def test_a_folder_that_cannot_be_is_one_line(index_dir, data):
    with pytest.raises(InputError, match='no index can be written here'):
        open_index(data, index_dir=data.parent/index_dir)
    with pytest.raises(InputError, match='cannot be read'): open_index(data.parent/('y' * 300))


def test_a_full_disk_is_one_line_and_leaves_nothing(data, tmp_path):
    import resource
    def limit(): resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    done = subprocess.run([sys.executable, '-c', OPEN, str(data)], capture_output=True, text=True,
                          preexec_fn=limit)
    assert 'no index can be written here (File too large)' in done.stderr
    assert os.listdir(tmp_path) == ['rows.jsonl']


SLOW = """
import signal, sys, time
from wmtp.rows import index as row_index
# a shell that starts the tests in the background has it ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
scan = row_index.scan_file
def slow(*args, **kwargs):
    print('scanning', flush=True)
    time.sleep(60)
row_index.scan_file = slow
row_index.open_index(sys.argv[1])
"""


def test_a_killed_build_is_no_index_and_stops_nobody(data, tmp_path):
    process = subprocess.Popen([sys.executable, '-c', SLOW, str(data)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'scanning\n'
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path/'rows.jsonl.index').exists()
    part, = tmp_path.glob('.part-*')
    os.utime(part, (time.time() - 7200,) * 2)  # two hours ago
    assert len(open_index(data)) == 200
    assert sorted(os.listdir(tmp_path)) == ['rows.jsonl', 'rows.jsonl.index']


def test_an_interrupted_build_leaves_nothing(data, tmp_path):
    process = subprocess.Popen([sys.executable, '-c', SLOW, str(data)], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    assert process.stdout.readline() == 'scanning\n'
    process.send_signal(signal.SIGINT)
    process.wait()
    assert os.listdir(tmp_path) == ['rows.jsonl']


def test_of_several_processes_one_builds_and_all_have_the_index(data, tmp_path):
    processes = [subprocess.Popen([sys.executable, '-c', OPEN, str(data)], stdout=subprocess.PIPE, text=True)
                 for _ in range(3)]
    outputs = [process.communicate()[0].splitlines() for process in processes]
    assert len({lines[-1] for lines in outputs}) == 1 and outputs[0][-1].startswith('200 ')
    assert sum(len(lines) - 1 for lines in outputs) == 1  # one line says that it was made
    assert sorted(os.listdir(tmp_path)) == ['rows.jsonl', 'rows.jsonl.index']
