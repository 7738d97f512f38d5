"""Preparing data with the real script: odd values, two processes, a kill, a full disk, two benchmarks."""
import gzip
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
from fake_hub import COMMIT, fake_hub
from hub_rows import ECHO, ODD, hub_row, write_odd, write_rows

from wmtp.cli import guarded
from wmtp.core import file_sha256
from wmtp.prepare.merge import prepare_codecontests
from wmtp.prepare.parts import Settings
from wmtp.data.schema import read_rows

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT/'storage'/'datasets'/'microcode'/'tokenizer.model'
REAL = os.environ.get('WMTP_REAL_DATA')
SETTINGS = Settings(max_tokens=8000)
datasets.disable_progress_bars()


def prepare(source, folder, settings=SETTINGS, **kwargs):
    "The folder, made in this process."
    prepare_codecontests(str(source), folder, TOKENIZER, settings, out=io.StringIO(), **kwargs)
    return folder


def command(*options):
    return [sys.executable, str(ROOT/'scripts'/'setup_datasets.py'), *map(str, options), '--tokenizer',
            str(TOKENIZER)]


def script(*options, **kwargs):
    "The finished process of the real script."
    return subprocess.run(command(*options), capture_output=True, text=True, timeout=1200, **kwargs)


def contents(folder):
    "Every file of a folder, by its relative name."
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob('*'))
            if p.is_file()}


@pytest.fixture(scope='module')
def odd(tmp_path_factory):
    "The odd data set as two formats, and what it comes to."
    home = tmp_path_factory.mktemp('odd')
    for ending in ('.parquet', '.jsonl'): write_odd(home/ending[1:], ending)
    return home, prepare(home/'parquet', home/'made')


def test_odd_values_come_to_hand_checked_rows(odd):
    rows = {split: read_rows(odd[1]/f'{split}.jsonl')[0] for split in ('train', 'valid', 'test')}
    grades = [(f'_A. Grade {n}_correct_0', f'print({n})', n) for n in range(12, 30)]
    assert [(r['task_id'], r['output']) for r in rows['train'][:6]] == [
        ('codeforces/1_A. Echo_correct_0', 'print(input())'),
        ('codeforces/1_A. Echo_correct_1', 's = input()\nprint(s)'),
        ('codeforces/1_A. Echo_incorrect_0', 'print(1)'),
        ('codeforces/1_A. Echo_incorrect_3', 'print("</s>")'),
        ('codeforces/3_A. Both_correct_0', 'print(3)'), ('codeforces/3_A. Both_incorrect_1', 'print(4)')]
    for row, (ending, code, n) in zip(rows['train'][6:24], grades, strict=True):
        assert row['task_id'].endswith(f'/{100 + n}{ending}') and (row['output'],
            row['metadata']['difficulty_raw']) == (code, n)
    # of the ratings 2000, 2100, ..., 3700
    levels = [row['metadata']['difficulty'] for row in rows['train'][6:24]]
    assert levels == [5, 6, 6, 7, 7, 7, 8, 8, 9, 9, 9, 10, 10, 11, 11, 11, 11, 11]
    # the same name as the first problem: its program under another number, its copy gone
    again, = rows['train'][24:]
    assert (again['task_id'], again['metadata']['problem'], again['output']) == (
        'codeforces/1_A. Echo  (2)_correct_1', 'codeforces/1_A. Echo', 'print(*[input()])')
    assert [(r['task_id'], r['metadata']['difficulty']) for r in rows['valid']] == [
        ('codeforces/8_C. Double_correct_0', 2), ('codeforces/8_C. Double_incorrect_0', 2)]
    assert [(r['task_id'], r['output'], r['metadata']['source']) for r in rows['test']] == [
        ('aizu/p00001 Höhe_correct_0', 'print("ü\u2028", 1)', 'aizu'),
        ('aizu/p00001 Höhe_correct_1', 'print(1)\n', 'aizu')]


def test_odd_fields_of_one_row(odd):
    first = read_rows(odd[1]/'train.jsonl')[0][0]
    assert (first['instruction'], first['input'],
            first['is_correct']) == (ECHO, 'Input:\na\nOutput:\na\n\nInput:\nb\nOutput:\nb', True)
    n_tokens = first['metadata'].pop('n_tokens')
    assert first['metadata'] == {'source': 'codeforces', 'difficulty': 1, 'difficulty_raw': 7,
                                 'cf_rating': 800, 'cf_tags': ['strings', '*special'],
                                 'has_tests': True, 'problem': 'codeforces/1_A. Echo', 'language': 'python3'}
    assert 10 < n_tokens < 200


def test_odd_values_are_dropped_for_the_stated_reasons(odd):
    counts = json.loads((odd[1]/'stats'/'dropped.json').read_text())
    assert counts['train'] == {
        'problems': {'read': 26, 'kept': 23, 'dropped': {'problem of another split': 1, 'problem: NUL': 1,
                                                         'problem: uneven lists': 1}},
        'programs': {'read': 47, 'kept': 25, 'dropped': {
            'NUL': 1, 'blank program': 1, 'does not compile': 3, 'language cpp': 1, 'language java': 1,
            'language python2': 2, 'language unknown': 1,
            'lone surrogate': 1, 'near-identical program': 2, 'nested too deeply': 1,
            'problem of another split': 1, 'problem: NUL': 1,
            'problem: uneven lists': 2, 'same program with both labels': 2, 'too many characters': 1,
            'too many tokens': 1}}}
    for split, found in counts.items():
        stats = json.loads((odd[1]/'stats'/f'{split}.json').read_text())
        assert stats['rows'] == found['programs']['kept'] == len((odd[1]
            /f'{split}.jsonl').read_bytes().splitlines())
        for what in found.values(): assert what['read'] == what['kept'] + sum(what['dropped'].values())


def test_problems_keep_their_tests_and_hashes_match(odd):
    problems = {p['problem']: p for p in map(json.loads, gzip.open(odd[1]/'problems.jsonl.gz'))}
    echo = problems['codeforces/1_A. Echo']
    assert (echo['split'], echo['n_correct'], echo['n_incorrect'],
            echo['also']) == ('train', 3, 2, ['codeforces/1_A. Echo'])
    assert (echo['tests'], echo['n_tests']) == ([['a\n', 'a\n'], ['b', 'b'], ['c', 'c']], 3)
    assert problems['aizu/p00001 Höhe']['input_file'] == 'height.in'
    assert (problems['unknown/2_A. Nothing']['n_correct'],
            problems['unknown/2_A. Nothing']['difficulty_raw']) == (0, 0)
    assert not {'codeforces/5_A. Twice', 'codeforces/6_A. Torn'} & set(problems)
    metadata = json.loads((odd[1]/'metadata.json').read_text())
    assert set(metadata['files']) | {'metadata.json'} == set(contents(odd[1]))
    for name, file in metadata['files'].items():
        assert (file['sha256'], file['bytes']) == (file_sha256(odd[1]/name), (odd[1]/name).stat().st_size)


def test_json_and_arrow_give_the_same_rows(odd, tmp_path):
    made = contents(odd[1])
    json_made = contents(prepare(odd[0]/'jsonl', tmp_path/'from_json'))
    assert {name: data for name, data in json_made.items()
            if name != 'metadata.json'} == {n: d for n, d in made.items() if n != 'metadata.json'}
    # Arrow files are checked as a whole by `datasets`: no half characters in them
    for name, rows in ODD.items():
        whole = [{**row,
                  'incorrect_solutions': {key: column[:5]
                                          for key, column in row['incorrect_solutions'].items()}}
                                          for row in rows]
        write_rows(whole, tmp_path/'arrow'/name.split('-')[0]/name/f'{name}.arrow')
    from_arrow = prepare(tmp_path/'arrow', tmp_path/'from_arrow')
    for split in ('train', 'valid', 'test'):
        assert (from_arrow/f'{split}.jsonl').read_bytes() == made[f'{split}.jsonl']


def test_from_the_hub_by_name(odd, tmp_path):
    "The real client asks a server on this machine: the same rows as from files, and the commit is recorded."
    write_odd(tmp_path/'hub'/'data', '.parquet')
    (tmp_path/'hub'/'README.md').write_text('---\nlicense: cc-by-4.0\n---\n')
    server = fake_hub(tmp_path/'hub', 'deepmind/code_contests')
    environment = {key: value for key, value in os.environ.items() if not key.startswith('HF_')} | {
        'HF_ENDPOINT': f'http://127.0.0.1:{server.server_port}', 'HF_HOME': str(tmp_path/'cache'),
        'HF_HUB_DISABLE_TELEMETRY': '1', 'no_proxy': '*'}
    done = script('codecontests', '--out', tmp_path/'made', '--max-tokens', 8000, env=environment)
    server.shutdown()
    assert done.returncode == 0, done.stderr
    made, local = contents(tmp_path/'made'), contents(odd[1])
    metadata = json.loads(made.pop('metadata.json'))
    local.pop('metadata.json')
    assert made == local
    assert [i['identity'] for i in metadata['inputs']][2:] == [
        f'hf://datasets/deepmind/code_contests@{COMMIT}/data/{split}-00000-of-00001.parquet'
        for split in ('valid', 'test')]


def test_python_2_by_option(odd, tmp_path):
    rows = read_rows(prepare(odd[0]/'parquet', tmp_path/'made', Settings(max_tokens=8000, python2=True))
                     /'train.jsonl')[0]
    assert [(r['task_id'], r['output']) for r in rows if r['metadata']['language'] == 'python2'] == [
        ('codeforces/1_A. Echo_correct_7', 'line = input()\nprint(line + "")')]


def test_a_cap_draws_the_same_programs_whatever_the_order(tmp_path):
    codes = [(3, f'print({n})') for n in range(40)]
    for name, order in (('a', codes), ('b', codes[::-1])):
        write_rows([hub_row('1_A', correct=order, incorrect=[(3, 'x = 1')])], tmp_path/name/'train.jsonl')
    kept = [{r['output'] for r in read_rows(prepare(tmp_path/name, tmp_path/name/'made', cap=5)
                                            /'train.jsonl')[0]} for name in 'ab']
    assert kept[0] == kept[1] and len(kept[0]) == 6


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    "Eight shards that take seconds, and what they come to in one process without interruption."
    home = tmp_path_factory.mktemp('many')
    body = '\n'.join(f'y{i} = x + {i}\nprint(y{i}, sum([x, {i}]))' for i in range(15))
    for n in range(8):
        rows = [hub_row(f'{n}_{p}', correct=[(3, f'x = {n * 1000 + p * 50 + k}\n{body}') for k in range(8)])
                for p in range(15)]
        write_rows(rows, home/'in'/f'{"test" if n == 7 else "train"}-{n}.{"parquet" if n % 2 else "jsonl"}')
    return home, contents(prepare(home/'in', home/'made'))


def test_two_processes_give_the_same_bytes(many, tmp_path):
    done = script('codecontests', '--source', many[0]/'in', '--out', tmp_path/'made', '--num-proc', 2,
                  '--max-tokens', 8000)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith('preparing: 100 % of ')
    assert contents(tmp_path/'made') == many[1] and os.listdir(tmp_path) == ['made']


def children(pid):
    "The processes whose parent is or was this one (Linux)."
    found = []
    for status in Path('/proc').glob('[0-9]*/status'):
        try: text = status.read_text()
        except OSError: continue
        if f'\nPPid:\t{pid}\n' in text: found.append(int(status.parent.name))
    return found


def test_killed_in_the_middle_and_restarted_gives_the_same_bytes(many, tmp_path):
    options = ('codecontests', '--source', many[0]/'in', '--out', tmp_path/'made', '--max-tokens', 8000,
               '--num-proc', 2)
    parts = tmp_path/'.made.parts'
    process = subprocess.Popen(command(*options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 900
    while len(finished := [*parts.glob('*.state')]) < 2:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(.002)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(finished) < 8 and not (tmp_path/'made').exists()
    while any(Path(f'/proc/{pid}').exists()
              and 'Z' not in Path(f'/proc/{pid}/stat').read_text().rsplit(')')[-1].split()[0]
              for pid in workers):
        assert time.monotonic() < end, 'a worker outlived its parent'
        time.sleep(.01)
    prepare(many[0]/'in', tmp_path/'made')
    assert contents(tmp_path/'made') == many[1] and os.listdir(tmp_path) == ['made']


def test_finished_shards_are_not_made_again(many, tmp_path, monkeypatch):
    from wmtp.prepare import parts as module
    made = []
    once = module.prepare_problem
    def counted(row, *args):
        if len(made) == 40: raise KeyboardInterrupt
        made.append(row['name'])
        return once(row, *args)
    monkeypatch.setattr(module, 'prepare_problem', counted)
    with pytest.raises(KeyboardInterrupt): prepare(many[0]/'in', tmp_path/'made')
    monkeypatch.setattr(module, 'prepare_problem', lambda row, *args: made.append(row['name'])
                        or once(row, *args))
    prepare(many[0]/'in', tmp_path/'made')
    assert contents(tmp_path/'made') == many[1]
    assert len(made) == 40 + 8 * 15 - 2 * 15  # two shards of 15 rows were whole, the third was begun again


def test_a_full_disk_is_one_line_and_leaves_no_data_set(many, tmp_path):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    done = script('codecontests', '--source', many[0]/'in', '--out', tmp_path/'made', '--max-tokens', 8000,
                  preexec_fn=limit)
    said = 'setup_datasets.py: failed: OSError: [Errno 27] File too large'
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(said)
    assert os.listdir(tmp_path) == ['.made.parts'] and not [*(tmp_path/'.made.parts').glob('*.rows.*')]
    prepare(many[0]/'in', tmp_path/'made')
    assert contents(tmp_path/'made') == many[1]


def test_a_link_in_the_way_is_refused(odd, tmp_path):
    (tmp_path/'elsewhere').mkdir()
    for name in ('made', '.made.draft', '.made.parts'):
        (tmp_path/name).symlink_to(tmp_path/'elsewhere')
        with pytest.raises(ValueError, match='is a link'): prepare(odd[0]/'jsonl', tmp_path/'made')
        (tmp_path/name).unlink()
    assert os.listdir(tmp_path/'elsewhere') == []


@pytest.mark.parametrize('options, said', [
    (['codecontests', '--source', '/no/such/folder/*'], 'no .parquet, .arrow or .json(l) file was found'),
    (['mbpp', '--source', '/no/such/file.jsonl'], 'no such file'),
    (['codecontests', '--source', str(TOKENIZER.parent/'train.jsonl.gz')], "no column name, description")])
def test_a_wrong_source_is_one_line_and_exit_code_2(options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT/'scripts')
    import setup_datasets
    options = [*options, '--tokenizer', str(TOKENIZER), '--out', str(tmp_path/'made')]
    assert guarded(setup_datasets.make_parser(), setup_datasets.prepare, options) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and said in error[0] and not (tmp_path/'made').exists()


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path):
    peaks = []
    for n in (300, 3000):
        rows = [hub_row(f'{n}_{p}', correct=[(3, f'print({p * 10 + k})\n' + f'# {"x" * 2000}')
                                             for k in range(10)]) for p in range(n // 10)]
        write_rows(rows, tmp_path/str(n)/'train.jsonl')
        arguments = str(tmp_path/str(n)), str(tmp_path/f'made{n}'), str(TOKENIZER)
        code = ('import io, sys\nfrom wmtp.prepare.merge import Settings, prepare_codecontests\n'
                'prepare_codecontests(*sys.argv[1:], Settings(8000), out=io.StringIO())\n'
                'print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))')
        done = subprocess.run([sys.executable, '-c', code, *arguments], capture_output=True, text=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 4096  # KiB; the longer file holds 6 MB more


@pytest.mark.skipif(not REAL, reason='WMTP_REAL_DATA is unset: no real data to read')
def test_the_benchmarks_have_all_their_tasks(tmp_path):
    from wmtp.prepare.publish import prepare_benchmark
    prepare_benchmark('mbpp', Path(REAL)/'mbpp.jsonl', tmp_path/'mbpp', Path(REAL)/'llama_tokenizer.model')
    prepare_benchmark('humaneval', Path(REAL)/'HumanEval.jsonl.gz', tmp_path/'humaneval',
                      Path(REAL)/'llama_tokenizer.model')
    sizes = {split: len(read_rows(tmp_path/'mbpp'/f'{split}.jsonl')[0])
             for split in ('prompt', 'train', 'valid', 'test')}
    assert sizes == {'prompt': 10, 'train': 374, 'valid': 90, 'test': 500} and sum(sizes.values()) == 974
    assert len(read_rows(tmp_path/'humaneval'/'test.jsonl')[0]) == 164
    problems = [json.loads(line) for line in gzip.open(tmp_path/'mbpp'/'problems.jsonl.gz')]
    assert len(problems) == 974 and all(len(p['tests']) == 3 for p in problems)
