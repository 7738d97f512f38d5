"""Preparing contest problems with two processes, beside the least it must do (parse and compile each
program once); its memory.

Goal: 10,000 programs in under 60 s on two cores; with ten times the programs the same peak of memory within
20 %. The programs are as long as a contestant's (about 1.1 KB): several functions of microcode in one file,
each file different.
"""
import ast
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import median, table, timed

from wmtp.config.load import project_root

CHILD = '''
import io, sys
from wmtp.prepare.merge import prepare_codecontests
from wmtp.prepare.parts import Settings
if __name__ == '__main__':
    source, folder, tokenizer, num_proc = sys.argv[1:]
    prepare_codecontests(source, folder, tokenizer, Settings(4096), num_proc=int(num_proc), out=io.StringIO())
    print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
'''


def contest(n, folder, per_problem=50, shards=4):
    "Writes n programs as rows of the hub, half of them marked incorrect; returns the texts."
    shipped = project_root()/'storage'/'datasets'/'microcode'/'train.jsonl.gz'
    draw, texts = random.Random(n), []
    pool = [json.loads(line)['output'].replace('def f(', 'def f{}(') for line in gzip.open(shipped)]
    files = [(Path(folder)/f'train-{k}.jsonl').open('w', encoding='utf-8') for k in range(shards)]
    empty = {'input': [], 'output': []}
    for p in range(n // per_problem):
        programs = ['\n\n'.join(draw.choice(pool).replace('{}', str(i)) for i in range(8))
                    + f'\nprint({p}, {k})' for k in range(per_problem)]
        texts += programs
        halves = [{'language': [3] * len(half), 'solution': half} for half in (programs[::2], programs[1::2])]
        statement = f'Problem {p}. ' + ' '.join(draw.choice(('read', 'print', 'numbers', 'line', 'the', 'of'))
                                                for _ in range(200))
        files[p % shards].write(json.dumps({
            'name': f'{p}_A', 'description': statement, 'source': 2, 'difficulty': 7,
            'cf_rating': 800 + p % 2500, 'cf_tags': [], 'public_tests': empty,
            'private_tests': empty, 'generated_tests': empty, 'solutions': halves[0],
            'incorrect_solutions': halves[1]}) + '\n')
    for f in files: f.close()
    return texts


def cpu_of_children():
    "Seconds that finished child processes have computed, user and system."
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def child(script, *arguments):
    "Seconds by the clock, seconds of computing, and peak memory in KiB of one preparation."
    found, before = [], cpu_of_children()
    took = timed(lambda: found.append(subprocess.run([sys.executable, script, *map(str, arguments)],
                                                     capture_output=True, encoding='utf-8', check=True)))
    return took, cpu_of_children() - before, int(found[0].stdout)


def parsed(texts):
    "Seconds of computing that parsing and compiling each program once takes."
    began = time.process_time()
    for text in texts: compile(ast.parse(text), 'p', 'exec')
    return time.process_time() - began


def run(draws, device):
    tokenizer = project_root()/'storage'/'datasets'/'microcode'/'tokenizer.model'
    with tempfile.TemporaryDirectory() as home:
        script = Path(home)/'child.py'
        script.write_text(CHILD, encoding='utf-8')
        for n in (1_000, 10_000): os.mkdir(f'{home}/{n}')
        texts = {n: contest(n, f'{home}/{n}') for n in (1_000, 10_000)}
        floor, whole = [], []
        for k in range(min(draws, 3)):
            floor.append(parsed(texts[10_000]))
            whole.append(child(script, f'{home}/10000', f'{home}/two{k}', tokenizer, 2))
        small, large = (child(script, f'{home}/{n}', f'{home}/one{n}', tokenizer, 1)[2] for n in texts)
    size, (clock, cpu, _) = sum(map(len, texts[10_000])) / 10_000, map(median, zip(*whole))
    table(f'prepare: 10,000 programs of {size:,.0f} characters, two processes, median of {len(whole)}', [
        ('parsing and compiling, computing time', median(floor), 's', 1.),
        ('the whole preparation, computing time', cpu, 's', cpu / median(floor)),
        ('the whole preparation, by the clock', clock, 's', clock / median(floor))])
    table('prepare: peak memory of one process', [
        ('1,000 programs', small / 1024, 'MiB', 1.), ('10,000 programs', large / 1024, 'MiB', large / small)])
