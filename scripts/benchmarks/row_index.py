"""Building the index of 400,000 rows of 2.2 KB, beside a cold `datasets.load_dataset("json")` of the file.

Goals: no slower than `load_dataset`; less than 150 MiB above the interpreter with the package imported;
5,000 random rows in under 0.5 s. Each case runs in a process of its own, which takes the file out of the
system's cache before it starts the clock. WMTP_BENCH_ROWS sets another number of rows.
"""
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import median, table, timed

from wmtp.config.load import project_root

CHILD = '''
import os, random, sys, time
from pathlib import Path
def peak():
    lines = open('/proc/self/status').read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) / 1024
what, path, home = sys.argv[1:]
if what == 'index': from wmtp.rows.index import build_index, open_index
else: import datasets
with open(path, 'rb') as f: os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
with open('/proc/self/clear_refs', 'w') as f: f.write('5')  # the peak starts from what is held now
before, started, computed = peak(), time.perf_counter(), time.process_time()
if what == 'index': build_index(Path(path), Path(home)/'rows.jsonl.index')
else: datasets.load_dataset('json', data_files=path, cache_dir=f'{home}/cache', split='train')
took, computed = time.perf_counter() - started, time.process_time() - computed
above, opening, reading = peak() - before, 0, 0
if what == 'index':
    started = time.perf_counter()
    index = open_index(path, index_dir=home)
    opening, started = time.perf_counter() - started, time.perf_counter()
    index.rows(random.Random(0).choices(range(len(index)), k=5000))
    reading = time.perf_counter() - started
print(took, computed, above, opening, reading)
'''


def write_rows(path, n, per_problem=250):
    """Rows as the preparation writes them, 250 to a problem (CodeContests: 285); returns bytes per row.

    Every tenth is one line longer than the one before.
    """
    shipped, draw = project_root()/'storage'/'datasets'/'microcode'/'train.jsonl.gz', random.Random(0)
    pool = [json.loads(line)['output'] for line in gzip.open(shipped)]
    words = 'read the numbers from each line and print their sum or -1 when there is none \u2264 10'.split()
    with open(path, 'w', encoding='utf-8') as f:
        for i in range(n):
            p, k = divmod(i, per_problem)
            if k == 0:
                statement, rating = f'Problem {p}. ' + ' '.join(draw.choices(words, k=140)), 800 + p % 2700
                meta = dict(source='codeforces', difficulty=min(11, 1 + (rating - 800) // 250),
                            difficulty_raw=7, cf_rating=rating,
                            cf_tags=['implementation', 'math'], has_tests=True,
                            problem=f'codeforces/{p}_A. Sums', language='python3')
            if k % 10 != 9: body = '\n\n'.join(draw.choices(pool, k=8))
            else: body += f'\nprint({i})'
            label = ('incorrect', 'correct')[k % 2]
            meta['n_tokens'] = 300 + len(body) // 3
            row = dict(instruction=statement, input='Input:\n3\n1 2 3\nOutput:\n6', output=f'# {i}\n{body}',
                       task_id=f'codeforces/{p}_A. Sums_{label}_{k}', is_correct=k % 2 == 1, metadata=meta)
            f.write(json.dumps(row, ensure_ascii=False) + '\n')
        f.flush()
        os.fsync(f.fileno())
    return path.stat().st_size / n


def child(what, path, home):
    "Seconds, seconds of computing, MiB above the start; for an index seconds to open again, of 5,000 rows."
    environment = os.environ | {'HF_HUB_OFFLINE': '1', 'HF_DATASETS_DISABLE_PROGRESS_BARS': '1',
                                'HF_HOME': str(home/'hf')}
    done = subprocess.run([sys.executable, '-c', CHILD, what, str(path), str(home)], env=environment,
                          capture_output=True, encoding='utf-8')
    if done.returncode: sys.exit(done.stderr)
    for left in ('cache', 'hf', 'rows.jsonl.index'): shutil.rmtree(home/left, ignore_errors=True)
    return [float(number) for number in done.stdout.split()[-5:]]


def read_through(path):
    "Reads a file that is not cached and forgets it, the least that any of them must do."
    with open(path, 'rb', buffering=0) as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        piece = bytearray(1 << 22)
        while f.readinto(piece): pass


def run(draws, device):
    n = int(os.environ.get('WMTP_BENCH_ROWS', 400_000))
    with tempfile.TemporaryDirectory() as name:
        home, path = Path(name), Path(name)/'rows.jsonl'
        size, runs, floor = write_rows(path, n), {'index': [], 'load_dataset': []}, []
        for _ in range(min(draws, 3)):
            floor.append(timed(lambda: read_through(path)))
            for what in runs: runs[what].append(child(what, path, home))
    index, load = ([median(column) for column in zip(*runs[what])] for what in runs)
    names = 'load_dataset("json")', 'building the index'
    table(f'row index: {n:,} rows of {size:,.0f} bytes, file not cached, median of {len(floor)}', [
        (names[0], load[0], 's', 1.), (names[1], index[0], 's', index[0] / load[0]),
        ('reading the bytes', median(floor), 's', median(floor) / load[0]),
        ('opening the index again', index[3], 's', index[3] / load[0])])
    table('row index: computing time',
          [(names[0], load[1], 's', 1.), (names[1], index[1], 's', index[1] / load[1])])
    table('row index: peak memory above the imported package', [
        (names[0], load[2], 'MiB', 1.), (names[1], index[2], 'MiB', index[2] / load[2])])
    table('row index: 5,000 random rows, checked', [('reading', index[4] * 1000, 'ms', 1.)])
