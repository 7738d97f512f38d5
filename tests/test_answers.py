"""Answers in the forms in which models give them, as they are written and as they are judged."""
import gzip
import json
import os

import pytest

from wmtp.evaluation.answers import FENCES
from wmtp.evaluation.benchmarks import humaneval_benchmark, load_benchmark, mbpp_benchmark
from wmtp.evaluation.generate import Completion
from wmtp.sandbox.sandbox import Sandbox

PROMPT = ('from typing import List\n\n\ndef longest(words: List[str]) -> int:\n'
          '    """ The length of the longest word, or 0.\n    >>> longest(["ab", "c"])\n    2\n    """\n')
BODY = '    return max(map(len, words), default=0)\n'
WHOLE = f'def longest(words: List[str]) -> int:\n{BODY}'
HELPED = f'import math\n\n\ndef widest(words):\n{BODY}\n\ndef longest(words):\n    return widest(words)\n'
TWICE = 'def twice(n):\n    return 2 * n\n'

HUMANEVAL = {
    'body': f'\n{BODY}', 'body without its line break': BODY,
    'comment, then body': f'\n# the longest\n{BODY}',
    'blank lines, then body': f'\n    \n\n{BODY}',
    'body and the next function': f'\n{BODY}\n\ndef other(x):\n    ret',
    'body and its test': f'\n{BODY}\n# test\nprint(longest([]',
    'body, fence behind': f'\n{BODY}```\nIt is max.',
    'body, then a fenced example': f'\n{BODY}\n```python\nlongest([])\n```', 'whole': f'\n{WHOLE}',
    'whole at once': WHOLE, 'whole behind an import': f'\nimport math\n\n{WHOLE}',
    'helper first': f'\n\n{HELPED}',
    'whole and the next': f'\n{WHOLE}\n\ndef other(x):\n    ret', 'prompt once more': f'\n{PROMPT}{BODY}',
    'decorated': f'\nimport functools\n\n@functools.wraps(len)\n{WHOLE}',
    'body in a fence': f'```python\n{BODY}```', 'whole in a fence': f'\n```python\n{WHOLE}```\n',
    'import and whole in a fence': f'```python\nfrom typing import List\n\n{WHOLE}```\n',
    'helper in a fence': f'```\n{HELPED}```',
    'sentence': f'\nHere is the function:\n\n```python\n{WHOLE}```\n',
    'heading': f'\n# Solution\n\nWe take the maximum.\n\n```python\n{WHOLE}```\n\n# Why\nIt is.',
    'class in a sentence': f'\nThe\nclass of words.\n```py\n{BODY}```', 'tildes': f'~~~python\n{WHOLE}~~~\n',
    'four backticks': f'````\n{WHOLE}````',
    'indented fence': f'\n    ```python\n{BODY}    ```\nDone.',
    'never closed': f'\nSo:\n```python\n{WHOLE}',
    'text behind': f'```python\n{WHOLE}```\nThis is\ndef initely it.',
    'CRLF': f'\nSure!\n```python\n{WHOLE}```\n'.replace('\n', '\r\n'),
    'called in the fence': f'```python\n{WHOLE}\nprint(longest(["a"]))\nlongest(0)\n```',
    'fence in a docstring': f"\n    '''Or:\n    ```\n    longest([])\n    ```'''\n{BODY}"}
MBPP = {
    'program': f'\n{TWICE}', 'class first': f'\nclass A: pass\n\n{TWICE}', 'fence': f'```python\n{TWICE}```',
    'sentence': f'\nSure! This doubles it:\n```python\n{TWICE}```\nHope this helps.',
    'tildes': f'~~~\n{TWICE}~~~',
    'CRLF': f'```python\r\n{TWICE}```\r\n'.replace('\n', '\r\n').replace('\r\r', '\r'),
    'main': f'\n{TWICE}\nif __name__ == "__main__":\n    print(twice(input()))\n',
    'main in a fence': f'```\n{TWICE}\nif __name__ == "__main__":\n    print(twice(input()))\n```',
    'if in a sentence': f'\nIt works\nif n is a number:\n\n```python\n{TWICE}```'}
WRONG = {'empty': '', 'sentence alone': '\nI cannot help with that.\n', 'empty fence': '```python\n```',
         'fence alone': '```', 'wrong': '\n    return 0\n',
         'wrong in a fence': '```\ndef longest(words): return 0\n```'}


@pytest.fixture(scope='module')
def benchmarks(tmp_path_factory):
    "One task in the form of HumanEval, one in that of MBPP, and a sandbox."
    folder = tmp_path_factory.mktemp('files')
    test = 'def check(candidate):\n    assert candidate(["ab", "c"]) == 2\n    assert candidate([]) == 0\n'
    record = dict(task_id='HumanEval/0', prompt=PROMPT, entry_point='longest', canonical_solution=BODY,
                  test=test)
    with gzip.open(folder/'HumanEval.jsonl.gz', 'wt') as f: f.write(json.dumps(record) + '\n')
    record = dict(text='Write a function twice that doubles a number.', code=TWICE, task_id=11,
                  test_setup_code='', test_list=['assert twice(4) == 8'] * 3, challenge_test_list=[])
    (folder/'mbpp.jsonl').write_text(json.dumps(record) + '\n')
    with Sandbox(workers=1) as sandbox:
        yield {'humaneval': load_benchmark('humaneval', folder/'HumanEval.jsonl.gz'),
               'mbpp-0shot': load_benchmark('mbpp-0shot', folder/'mbpp.jsonl'), 'sandbox': sandbox}


class Characters:
    "A tokenizer with a token for each character."
    def decode(self, ids): return ''.join(map(chr, ids))


def written(benchmark, text):
    "What is left of a text that is written until its answer ends."
    answer_end = lambda so_far: benchmark.answer_end(benchmark.tasks[0], so_far)
    completion = Completion([], 10**6, Characters(), benchmark.stop + FENCES, {0}, False, answer_end)
    for token in [*map(ord, text), 0]:
        if not completion.finish: completion.append([token])
    return completion.result(False).text


@pytest.mark.parametrize('name, answers, passes', [('humaneval', HUMANEVAL, True), ('mbpp-0shot', MBPP, True),
                                                   ('humaneval', WRONG, False)])
def test_an_answer_means_the_same_while_it_is_written(benchmarks, name, answers, passes):
    "Its program passes, also when the writing stopped where the rule says."
    benchmark, verdicts = benchmarks[name], {}
    for what, text in answers.items():
        programs = [benchmark.program(benchmark.tasks[0], t) for t in (text, written(benchmark, text))]
        assert programs[0].rstrip() == programs[1].rstrip(), what
        verdicts[what] = benchmark.verdict(benchmark.tasks[0], programs[1], sandbox=benchmarks['sandbox'])
    assert [what for what, v in verdicts.items() if v.passed != passes] == []


def test_the_writing_stops_behind_the_code(benchmarks):
    "Neither at the fence that opens nor long after the one that closes."
    benchmark = benchmarks['humaneval']
    for what in ('text behind', 'heading', 'body and the next function', 'whole and the next'):
        text = written(benchmark, HUMANEVAL[what])
        assert 'return max' in text and len(text) < len(HUMANEVAL[what]) - 10, what


def test_prompts_end_in_no_white_space(benchmarks):
    for name in ('humaneval', 'mbpp-0shot'):
        assert all(task.prompt and not task.prompt[-1].isspace() for task in benchmarks[name].tasks)
        assert 'left to the model' in benchmarks[name].prompt_rule
    assert benchmarks['humaneval'].tasks[0].before == PROMPT
    assert all(task.prompt[-1] == '\n' for task in load_benchmark('microcode').tasks)


@pytest.mark.skipif('WMTP_REAL_DATA' not in os.environ, reason='WMTP_REAL_DATA is unset')
def test_published_solutions_mean_themselves():
    "As bodies, as whole functions and in fences; MBPP's programs with and without a line break in front."
    lines = lambda text: [line for line in text.split('\n') if line.strip()]
    benchmark = humaneval_benchmark()
    for task in benchmark.tasks:
        body = task.reference[len(task.before):]
        for answer in (body, f'\n{body}', f'```python\n{body}```'):
            code = lines(benchmark.program(task, answer))
            assert [line.rstrip() for line in code] == [line.rstrip() for line in lines(task.reference)], task
        for answer in (f'\n{task.reference}', f'Here:\n\n```python\n{task.reference}```\nBye.'):
            assert lines(benchmark.program(task, answer)) == lines(task.before + task.reference)
    for benchmark in (mbpp_benchmark('all', 0), mbpp_benchmark()):
        for task in benchmark.tasks:
            ends = [i for s in benchmark.stop if (i := task.reference.find(s)) >= 0]
            cut = task.reference[:min(ends, default=None)]
            assert benchmark.program(task, task.reference) == cut + '\n'
            assert benchmark.program(task, f'\n{task.reference}') == f'\n{cut}\n'
            assert task.prompt == task.prompt.rstrip()
