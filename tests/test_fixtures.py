"""The policy for good and bad data files, fixture by fixture.

Needs the folder named by WMTP_REAL_DATA; skipped without it.
"""
import json
import os
from pathlib import Path

import pytest

from wmtp.core import InputError
from wmtp.data.collate import encode_rows
from wmtp.data.epoch import sample_epoch
from wmtp.data.row_table import row_table
from wmtp.data.schema import FIELDS, read_rows
from wmtp.data.tokenizer import load_tokenizer

REAL = os.environ.get('WMTP_REAL_DATA')
pytestmark = pytest.mark.skipif(not REAL, reason='WMTP_REAL_DATA is unset: no real data to read')
FIXTURES = Path(REAL or '.')/'fixtures'

# file -> rows that must come, all of them, with either setting of on_bad_row
GOOD = {'ok_20.jsonl': 20, 'crlf_line_ends.jsonl': 20, 'tabs_real.jsonl': 13,
        'prompt_alone_over_2048_tokens.jsonl': 2, 'unicode_synthetic.jsonl': 8, 'good.jsonl.gz': 20,
        'extra_fields.jsonl': 4, 'single_class_only_correct.jsonl': 20,
        'split_leak_train.jsonl': 10, 'split_leak_valid.jsonl': 6}

# file -> first bad line, what its message says, rows left under skip, lines left out by reason
BAD = {'nul_raw_byte.jsonl': (2, 'NUL byte', 2, {'NUL': 1}),
       'empty_strings.jsonl': (1, 'output is blank', 1, {'blank text': 3}),
       'duplicate_task_id.jsonl': (2, 'task_id ends in _correct_0 but is_correct is false', 2,
                                   {'label contradiction': 1, 'repeated task_id': 1}),
       'missing_fields.jsonl': (1, 'instruction is missing', 1, {'missing field': 9}),
       'wrong_types.jsonl': (1, 'is_correct is "true"; wanted true or false', 1,
                             {'wrong type': 16, 'out of range': 1, 'not an object': 4, 'missing field': 1}),
       'difficulty_out_of_range.jsonl': (5, 'metadata.difficulty is 12', 4, {'out of range': 3}),
       'truncated_last_line.jsonl': (20, 'not JSON', 19, {'not JSON': 1}),
       'broken_middle_line.jsonl': (8, 'not JSON', 19, {'not JSON': 1}),
       'bom.jsonl': (1, 'byte order mark', 19, {'byte order mark': 1})}


def aside(folder):
    "Settings that write nothing beside the fixtures, and nothing to MLflow."
    return [f'data.index_dir={folder}/indexes', f'checkpoint.save_dir={folder}/run', 'mlflow.enabled=false']


def refusal(path, **kwargs):
    "The one line with which a file is refused."
    with pytest.raises(InputError) as refused: read_rows(path, **kwargs)
    assert '\n' not in str(refused.value)
    return str(refused.value)


def test_every_fixture_has_a_policy():
    stated = {*GOOD, *BAD, 'label_conflicts.jsonl', 'empty_file.jsonl'}
    assert stated == set(json.loads((FIXTURES/'manifest.json').read_text()))


@pytest.mark.parametrize('mode', ['error', 'skip'])
@pytest.mark.parametrize('name', GOOD)
def test_good_files_are_read_whole(name, mode):
    rows, report = read_rows(FIXTURES/name, mode)
    assert (len(rows), report.n_rows, report.n_skipped) == (GOOD[name], GOOD[name], 0)
    assert all(tuple(row) == FIELDS for row in rows)


@pytest.mark.parametrize('name', BAD)
def test_bad_files_name_the_line_and_the_reason(name):
    line, reason, _, _ = BAD[name]
    message = refusal(FIXTURES/name)
    assert message.startswith(f'{FIXTURES/name}:{line}: ') and reason in message


@pytest.mark.parametrize('name', BAD)
def test_skipping_counts_by_reason(name):
    line, _, n_rows, reasons = BAD[name]
    rows, report = read_rows(FIXTURES/name, 'skip')
    assert (len(rows), report.n_rows) == (n_rows, n_rows)
    assert (report.reasons, report.n_skipped) == (reasons, sum(reasons.values()))
    assert report.first_bad.startswith(f'{FIXTURES/name}:{line}: ')


def test_a_file_without_a_usable_row_is_refused_either_way():
    assert 'the file is empty' in refusal(FIXTURES/'empty_file.jsonl')
    assert 'the file is empty' in refusal(FIXTURES/'empty_file.jsonl', on_bad_row='skip')
    assert 'label_conflicts.jsonl:1: task_id ends in _correct_0' in refusal(FIXTURES/'label_conflicts.jsonl')
    assert 'no usable row in 4 lines' in refusal(FIXTURES/'label_conflicts.jsonl', on_bad_row='skip')


def test_a_program_with_both_labels_is_named_with_both_lines(tmp_path):
    lines = (FIXTURES/'label_conflicts.jsonl').read_bytes().splitlines(keepends=True)[2:]
    (tmp_path/'two.jsonl').write_bytes(b''.join(lines))
    message = refusal(tmp_path/'two.jsonl')
    assert 'two.jsonl:2: ' in message and 'program of line 1' in message


def test_line_ends_and_compression_change_nothing():
    same = [read_rows(FIXTURES/name)[0] for name in ('ok_20.jsonl', 'crlf_line_ends.jsonl', 'good.jsonl.gz')]
    assert same[0] == same[1] == same[2]


@pytest.mark.parametrize('share', [.02, .5, .98])
def test_a_truncated_gzip_file_is_refused_even_under_skip(share, tmp_path):
    whole = (FIXTURES/'good.jsonl.gz').read_bytes()
    (tmp_path/'cut.jsonl.gz').write_bytes(whole[:int(share * len(whole))])
    assert 'gzip data is cut short or damaged' in refusal(tmp_path/'cut.jsonl.gz', on_bad_row='skip')


def test_foreign_fields_stay_out_and_are_counted():
    rows, report = read_rows(FIXTURES/'extra_fields.jsonl')
    assert report.ignored_fields == {'score': 4}
    assert all(row['metadata']['cf_rating'] == 1200 for row in rows)


def test_leaking_problems_are_refused(tmp_path, capsys):
    from wmtp.cli import main
    files = [f'data.{side}={FIXTURES}/split_leak_{side}.jsonl' for side in ('train', 'valid')]
    assert main('critic', ['--set', *files, *aside(tmp_path)]) == 2
    assert 'abc326_b' in capsys.readouterr().err and not (tmp_path/'run').exists()


@pytest.mark.parametrize('sampling', ['balanced', 'per_problem', 'pairs'])
def test_one_class_cannot_be_balanced(sampling):
    rows, _ = read_rows(FIXTURES/'single_class_only_correct.jsonl')
    table = row_table(rows, [10] * len(rows))
    assert sorted(sample_epoch(table, 0, 0, 'uniform')) == list(range(20))
    with pytest.raises(InputError, match='data.sampling=uniform'): sample_epoch(table, 0, 0, sampling)


def test_a_prompt_that_fills_the_window_is_dropped_and_counted():
    rows, _ = read_rows(FIXTURES/'prompt_alone_over_2048_tokens.jsonl')
    examples, index, counts = encode_rows(rows, load_tokenizer(Path(REAL)/'llama_tokenizer.model'), 2048)
    assert index == [1] and counts == dict(kept=1, truncated=0, no_room=1, empty_output=0)
    assert all(example.n_prompt < len(example.input_ids) for example in examples)


@pytest.mark.parametrize('name', ['unicode_synthetic.jsonl', 'tabs_real.jsonl'])
def test_odd_characters_survive_the_tokenizer(name):
    tokenizer = load_tokenizer(Path(REAL)/'llama_tokenizer.model')
    for row in read_rows(FIXTURES/name)[0]:
        ids, spans = tokenizer.spans(row['output'])
        assert tokenizer.decode(ids) == row['output'] and not {0, 1, 2} & set(ids)
        covered = {i for start, end in spans for i in range(start, end)}
        assert covered == set(range(len(row['output']))) and spans == sorted(spans)


@pytest.mark.parametrize('name', [*BAD, 'label_conflicts.jsonl', 'empty_file.jsonl'])
def test_a_run_on_a_bad_file_is_one_line_and_exit_code_2(name, tmp_path, capsys):
    from wmtp.cli import main
    code = main('critic', ['--set', f'data.train={FIXTURES/name}', 'data.valid=null', *aside(tmp_path)])
    out, err = capsys.readouterr()
    assert (code, out, err.count('\n')) == (2, '', 1)
    assert str(FIXTURES/name) in err and not (tmp_path/'run').exists()
