"""The validator: planted defects by name, the real sample, a prepared folder, exit codes, an audit."""
import gzip
import json
import os
from pathlib import Path

import pytest

from wmtp.cli import guarded
from wmtp.core import InputError
from wmtp.data.tokenizer import load_tokenizer
from wmtp.prepare.publish import prepare_benchmark
from wmtp.prepare.validate import validate

ROOT = Path(__file__).parents[1]
MICROCODE = ROOT/'storage'/'datasets'/'microcode'
REAL = os.environ.get('WMTP_REAL_DATA')
FIXTURES = Path(REAL or '.')/'fixtures'
real = pytest.mark.skipif(not REAL, reason='WMTP_REAL_DATA is unset: no real data to read')

# file -> faults by kind, and what else must be named: warnings, or counts as (name, value, rows)
PLANTED = {
    'ok_20.jsonl': ({}, []), 'good.jsonl.gz': ({}, []), 'split_leak_train.jsonl': ({}, []),
    'split_leak_valid.jsonl': ({}, []),
    'crlf_line_ends.jsonl': ({}, [('text', 'lines that end in CRLF', 20)]),
    'tabs_real.jsonl': ({}, [('text', 'programs with tabs', 13)]),
    'nul_raw_byte.jsonl': ({'NUL': 1}, []),
    'prompt_alone_over_2048_tokens.jsonl': ({'no room for the program': 1}, []),
    'unicode_synthetic.jsonl': ({'program: does not compile': 5},
                                [('text', 'texts with odd line separators', 3)]),
    'empty_strings.jsonl': ({'blank text': 3}, []),
    'duplicate_task_id.jsonl': ({'repeated task_id': 2, 'label contradiction': 1}, ['identical program']),
    'label_conflicts.jsonl': ({'label contradiction': 2, 'program with both labels': 1}, []),
    'missing_fields.jsonl': ({'missing field': 9, 'repeated task_id': 7}, []),
    'wrong_types.jsonl': ({'wrong type': 16, 'not an object': 4, 'out of range': 1, 'missing field': 1,
                           'repeated task_id': 15}, []),
    'difficulty_out_of_range.jsonl': ({'out of range': 3}, []),
    'truncated_last_line.jsonl': ({'not JSON': 1}, []),
    'broken_middle_line.jsonl': ({'not JSON': 1}, []), 'empty_file.jsonl': ({'empty file': 1}, []),
    'bom.jsonl': ({'byte order mark': 1}, []),
    'extra_fields.jsonl': ({}, ['field that is not read', ('also in metadata', 'cf_rating', 4)]),
    'single_class_only_correct.jsonl': ({}, ['one label only'])}


@pytest.fixture
def main(monkeypatch, capsys):
    "The script's main as (exit code, stdout, stderr)."
    monkeypatch.syspath_prepend(ROOT/'scripts')
    import validate_datasets

    def run(*options):
        code = guarded(validate_datasets.make_parser(), validate_datasets.look, [*map(str, options)])
        return code, *capsys.readouterr()
    return run


@real
def test_every_fixture_is_looked_at():
    assert set(PLANTED) == set(json.loads((FIXTURES/'manifest.json').read_text()))


@real
@pytest.mark.parametrize('name', PLANTED)
def test_every_planted_defect_is_named(name):
    faults, named = PLANTED[name]
    found, = validate([FIXTURES/name], load_tokenizer(Path(REAL)/'llama_tokenizer.model')).files
    assert found.faults.counts == faults
    for what in named:
        if isinstance(what, str): assert found.warnings.counts[what]
        else: assert found.counts[what[0]][what[1]] == what[2]
    for places in found.faults.places.values(): assert all(str(FIXTURES/name) in place for place in places)


@real
def test_lines_are_named():
    found = validate([FIXTURES/'label_conflicts.jsonl', FIXTURES/'nul_raw_byte.jsonl']).files
    assert found[0].faults.places['program with both labels'] == [f"{FIXTURES/'label_conflicts.jsonl'}:4: "
                                                                  f"line 3 has the other label"]
    assert found[1].faults.places['NUL'][0].startswith(f"{FIXTURES/'nul_raw_byte.jsonl'}:2: ")


@real
def test_a_leak_is_named_with_its_problem():
    report = validate([FIXTURES/'split_leak_train.jsonl', FIXTURES/'split_leak_valid.jsonl'])
    assert report.faults.counts == {'problem in two files': 1}
    assert report.faults.places['problem in two files'][0].startswith('abc326_b: ')


@real
def test_the_real_sample_passes(main):
    code, out, err = main(Path(REAL)/'real_sample_300.jsonl', '--tokenizer',
                          Path(REAL)/'llama_tokenizer.model')
    assert (code, err) == (0, '') and 'real_sample_300.jsonl: 300 rows of 300 lines, 68 problems' in out
    assert 'label: correct 150, incorrect 150' in out and 'faults: 0, ' in out


def test_exit_codes(main, tmp_path):
    row = json.loads(next(iter(gzip.open(MICROCODE/'valid.jsonl.gz'))))
    (tmp_path/'bad.jsonl').write_text(json.dumps({**row, 'is_correct': 'yes'}) + '\n')
    assert main(MICROCODE)[0] == 0
    assert main(MICROCODE/'valid.jsonl.gz', '--strict')[0] == 0
    assert main(tmp_path/'bad.jsonl')[0] == 1
    assert main(MICROCODE/'valid.jsonl.gz', MICROCODE/'valid.jsonl.gz')[0] == 1
    for path in (tmp_path/'none.jsonl', tmp_path):
        code, out, err = main(path)
        assert (code, out, err.count('\n')) == (2, '', 1) and str(path) in err


def test_a_cut_gzip_file_is_a_fault(main, tmp_path):
    (tmp_path/'cut.jsonl.gz').write_bytes((MICROCODE/'valid.jsonl.gz').read_bytes()[:5000])
    code, out, _ = main(tmp_path/'cut.jsonl.gz')
    assert code == 1 and 'cannot be unpacked' in out


def test_a_prepared_folder_is_whole_until_it_is_touched(main, tmp_path):
    task = {'text': 'Add.', 'code': 'def add(a, b): return a + b', 'task_id': 601, 'test_setup_code': '',
            'test_list': ['assert add(1, 2) == 3'],
            'challenge_test_list': []}
    (tmp_path/'mbpp.jsonl').write_text(json.dumps(task) + '\n')
    prepare_benchmark('mbpp', tmp_path/'mbpp.jsonl', tmp_path/'made', MICROCODE/'tokenizer.model')
    assert main(tmp_path/'made', '--tokenizer', MICROCODE/'tokenizer.model')[0] == 0
    text = (tmp_path/'made'/'train.jsonl').read_text()
    n = json.loads(text)['metadata']['n_tokens']
    (tmp_path/'made'/'train.jsonl').write_text(text.replace(f'"n_tokens": {n}', f'"n_tokens": {n + 1}'))
    (tmp_path/'made'/'schema.json').unlink()
    code, out, _ = main(tmp_path/'made', '--tokenizer', MICROCODE/'tokenizer.model')
    assert code == 1
    for kind in ('hash differs: 1', 'missing file: 1', 'length differs from metadata: 1'): assert kind in out


EXECUTOR = '''
from wmtp.microcode.mutation import run_program
def check(program, test): return run_program(program, [test[0]])[0] == test[1]
class Verdict:
    def __init__(self, passed): self.passed = passed
def with_reason(program, test): return Verdict(check(program, test))
def silent(program, test): return None
'''


def test_the_audit_needs_an_executor_and_reports_agreement(main, tmp_path, monkeypatch):
    (tmp_path/'runs_microcode.py').write_text(EXECUTOR)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ('check', 'with_reason'):
        code, out, _ = main(MICROCODE/'test.jsonl.gz', '--audit', 25, '--executor', f'runs_microcode:{name}')
        confirmed = 'labels that running confirms: correct 25 of 25, incorrect 25 of 25; without tests: 0'
        assert code == 0 and confirmed in out
    for options, said in (([], 'nothing was run'),
                          (['--executor', 'no_such_module:check'], 'nothing was run'),
                          (['--executor', 'runs_microcode:silent'], 'the executor returned None')):
        code, out, err = main(MICROCODE/'test.jsonl.gz', '--audit', 5, *options)
        assert (code, out, err.count('\n')) == (2, '', 1) and said in err


def test_a_wrong_label_is_found_by_the_audit(tmp_path):
    from wmtp.microcode.mutation import run_program
    from wmtp.prepare.validate import audit_labels
    tests = {p['problem']: p['tests'] for p in map(json.loads, gzip.open(MICROCODE/'problems.jsonl.gz'))}
    rows = [json.loads(line) for line in gzip.open(MICROCODE/'test.jsonl.gz')][:60]
    wrong = rows[7]['task_id']
    rows[7]['is_correct'] = not rows[7]['is_correct']
    audit = audit_labels(rows, tests, lambda program, test: run_program(program, [test[0]])[0] == test[1],
                         100)
    assert audit.examples == [wrong] and audit.asked.total() - audit.agreed.total() == 1
    assert audit_labels(rows, {}, None, 100).untested == 60
    with pytest.raises(InputError, match='returned'): audit_labels(rows, tests, lambda program, test: 1, 1)
