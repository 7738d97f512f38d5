"""Synthetic rows in the exact schema of deepmind/code_contests, and files of them in every format."""
import json
from pathlib import Path

import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, List, Value

SOURCES = ['UNKNOWN_SOURCE', 'CODECHEF', 'CODEFORCES', 'HACKEREARTH', 'CODEJAM', 'ATCODER', 'AIZU']
LANGUAGES = ['UNKNOWN_LANGUAGE', 'PYTHON', 'CPP', 'PYTHON3', 'JAVA']
# half a surrogate pair; three bytes that stand for it where a file format cannot hold it
HALF, PLACEHOLDER = '\ud800', '\x1a\x1b\x1c'

TESTS = {'input': List(Value('string')), 'output': List(Value('string'))}
PROGRAMS = {'language': List(ClassLabel(names=LANGUAGES)), 'solution': List(Value('string'))}
FEATURES = Features({
    'name': Value('string'), 'description': Value('string'), 'public_tests': TESTS, 'private_tests': TESTS,
    'generated_tests': TESTS,
    # the hub names 29 values; the original release has a 30th, 29
    'source': ClassLabel(names=SOURCES), 'difficulty': Value('int64'),
    'solutions': PROGRAMS, 'incorrect_solutions': PROGRAMS, 'cf_contest_id': Value('int64'),
    'cf_index': Value('string'),
    'cf_points': Value('float32'), 'cf_rating': Value('int32'), 'cf_tags': List(Value('string')),
    'is_description_translated': Value('bool'),
    'untranslated_description': Value('string'),
    'time_limit': {'seconds': Value('int64'), 'nanos': Value('int64')},
    'memory_limit_bytes': Value('int64'), 'input_file': Value('string'), 'output_file': Value('string')})


def hub_row(name, description=None, correct=(), incorrect=(), public=(), **fields):
    "A row; programs are (language, text), tests (input, output)."
    programs = [{'language': [n for n, _ in column], 'solution': [text for _, text in column]}
                for column in (correct, incorrect)]
    tests = {'input': [given for given, _ in public], 'output': [wanted for _, wanted in public]}
    none = {'input': [], 'output': []}
    row = dict(name=name, description=description or f'{name}: read everything, compute what is asked for, '
                                                     f'and print it on one line.',
               public_tests=tests, private_tests=none, generated_tests=none, source=2, difficulty=7,
               solutions=programs[0],
               incorrect_solutions=programs[1], cf_contest_id=0, cf_index='', cf_points=0., cf_rating=0,
               cf_tags=[],
               is_description_translated=False, untranslated_description='',
               time_limit={'seconds': 2, 'nanos': 0},
               memory_limit_bytes=256_000_000, input_file='', output_file='')
    return row | fields


def write_rows(rows, path):
    "Rows in the format that the path's ending says; Parquet with half characters, as no writer makes it."
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.jsonl':
        path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
        return
    plain = json.loads(json.dumps(rows, ensure_ascii=False).replace(HALF, json.dumps(PLACEHOLDER)[1:-1]))
    data = Dataset.from_list(plain, features=FEATURES)
    if path.suffix == '.arrow': data.save_to_disk(path.parent)
    else:
        table = data.with_format('arrow')[:].cast(FEATURES.arrow_schema)
        pq.write_table(table, path, compression='none', use_dictionary=False, write_statistics=False)
        path.write_bytes(path.read_bytes().replace(PLACEHOLDER.encode(),
                                                   HALF.encode('utf-8', 'surrogatepass')))


ECHO = 'Print the line that you are given, exactly as it is, on a line of its own, and nothing else.'
TWICE = 'Print twice the number that you are given, which is never more than a thousand, on one line.'
LONG = 'x = 1\n' * 4000

# file -> rows; every odd value that must go through is in one of them
ODD = {
    'train-00000-of-00002': [
        hub_row('1_A. Echo', ECHO, cf_rating=800, cf_tags=['strings', '*special'],
                public=[('a\r\n', 'a\r\n'), ('b', 'b'), ('c', 'c')], correct=[
            (3, 'print(input())'), (3, 's = input()\r\nprint(s)'),
            (3, 'text = input() # a copy\nprint( text )'), (2, 'int main() {}'),
            (4, 'class A {}'), (0, 'print(input())'), (1, 'print raw_input()'),
            (1, 'line = input()\nprint(line + "")')],
            incorrect=[(3, 'print(1)'), (3, 'print("\0")'), (3, '#' * 190_000), (3, 'print("</s>")'),
                       (3, LONG), (3, f'print("{HALF}")')]),
        hub_row('2_A. Nothing', source=0, difficulty=0),
        hub_row('3_A. Both', correct=[(3, 'print(3)'), (3, 'a = 3\nprint(a)')],
                incorrect=[(3, 'b = 3\nprint(b)'), (3, 'print(4)')]),
        hub_row('4_A. Deep', correct=[(3, 'x = ' + '9' * 5000), (3, 'a' + '.a' * 300),
                                      (3, '(' * 300 + ')' * 300), (3, 'return 1'), (3, ' \n')]),
        hub_row('5_A. Twice', TWICE, correct=[(3, 'print(2 * int(input()))')]),
        hub_row('6_A. Torn', 'A statement with a \0 in it, which makes it unusable however long it is.',
                correct=[(3, 'print(1)')]),
        hub_row('7_A. Uneven', solutions={'language': [3], 'solution': ['a = 1', 'b = 2']})],
    'train-00001-of-00002': [hub_row(f'{100 + n}_A. Grade {n}', difficulty=n, cf_rating=800 + 100 * n,
                                     source=n % 7, correct=[(3, f'print({n})')])
                             for n in range(12, 30)] + [
        hub_row('1_A. Echo', ECHO + ' (second division)', cf_rating=900,
                correct=[(3, 'q = input()\nprint(q)'), (3, 'print(*[input()])')])],
    'valid-00000-of-00001': [hub_row('8_C. Double', TWICE.replace(' you', '\n\nyou'), difficulty=9,
                                     cf_rating=1249, correct=[(3, 'print(int(input()) * 2)')],
                                     incorrect=[(3, 'print(int(input()) ** 2)')])],
    'test-00000-of-00001': [hub_row('p00001 Höhe', source=6, difficulty=6, cf_rating=3500,
                                    correct=[(3, 'print("ü\u2028", 1)'), (3, 'print(1)\r')],
                                    input_file='height.in')]}


def write_odd(folder, ending):
    "The odd data set in one format: .parquet, .jsonl, or .arrow (a folder a file, as by `save_to_disk`)."
    for name, rows in ODD.items():
        split = name.split('-')[0]
        write_rows(rows, Path(folder)/(f'{name}/{split}.arrow' if ending == '.arrow' else f'{name}{ending}'))
