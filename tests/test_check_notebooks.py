"""The checker of notebooks must find what it is there to find: each fault is planted in a small tree."""
import ast
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nbdev.export import nb_export

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'scripts'))
import check_notebooks  # noqa: E402
import make_footers  # noqa: E402
SUMMARY = '**한글 요약.** 요약'

def cell(kind, source, **more):
    return {'cell_type': kind, 'id': 'a1', 'metadata': {}, 'source': source.splitlines(keepends=True)} | more

def code(source, *outputs): return cell('code', source, execution_count=None, outputs=[*outputs])

def value(text):
    return {'data': {'text/plain': [text]}, 'execution_count': None, 'metadata': {},
            'output_type': 'execute_result'}

def write(path, *cells):
    nb = {'cells': [*cells], 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(nb, indent=1, sort_keys=True, ensure_ascii=False) + '\n', encoding='utf-8')

@pytest.fixture
def small_tree(tmp_path):
    "A checkout of an index and one notebook, in which nothing is wrong; and its faults, when asked."
    for name in ('settings.ini', 'pyproject.toml'): shutil.copy(ROOT/name, tmp_path/name)
    for name in ('wmtp', 'nbs'): (tmp_path/name).mkdir()
    write(tmp_path/'nbs'/'00_core.ipynb', cell('markdown', f'# Core\n\n## State mask\n{SUMMARY}'),
          code('#| default_exp core'), code('#| export\nclass InputError(ValueError): pass'))
    write(tmp_path/'nbs'/'index.ipynb', cell('markdown', f'{SUMMARY} [core](00_core.ipynb)'))
    (tmp_path/'README.md').write_text(f'{SUMMARY} [core](nbs/00_core.ipynb)\n', encoding='utf-8')
    nb_export(tmp_path/'nbs'/'00_core.ipynb', lib_path=tmp_path/'wmtp')
    make_footers.write(tmp_path)
    assert list(check_notebooks.faults(tmp_path)) == []
    return tmp_path, lambda: list(check_notebooks.faults(tmp_path))

def test_planted_faults_are_found(small_tree):
    root, faults = small_tree
    nbs, wmtp = root/'nbs', root/'wmtp'
    (wmtp/'core.py').write_text((wmtp/'core.py').read_text() + '\nx = 1\n')
    (wmtp/'old_name.py').write_text('import os\n')
    write(nbs/'01_late.ipynb', cell('markdown', SUMMARY), code('#| default_exp late'),
          code('#| export\nfrom wmtp.later import y'))
    write(nbs/'01a_later.ipynb', code('#| default_exp later'),
          code('#| export\nfrom wmtp.core import InputError\nimport wmtp.nothing\ny = 1'))
    write(nbs/'00_method.ipynb', cell('markdown', SUMMARY), code('from wmtp.later import y')) # may: no export
    write(nbs/'index.ipynb', cell('markdown', SUMMARY), code('#| hide\n1') | {'execution_count': 3})
    (root/'README.md').write_text('old')
    lines = faults()
    for fault in ['nbs/01_late.ipynb imports wmtp.later from 01a_later.ipynb, which does not come before it',
                  'nbs/01a_later.ipynb imports wmtp.nothing, which no notebook exports',
                  'nbs/01a_later.ipynb has no 한글 요약 in its first four cells',
                  'nbs/index.ipynb is not clean', 'wmtp/core.py differs from its notebook',
                  'wmtp/old_name.py comes from no notebook', 'wmtp/late.py has not been exported',
                  'wmtp/later.py has not been exported', 'README.md is not what nbs/index.ipynb gives',
                  *(f'nbs/{name}.ipynb has not the footer that its place gives'
                    for name in ('00_method', '00_core', '01_late', '01a_later')), # 00_core has a successor
                  *(f'nbs/{name}.ipynb is not in the contents of the index'
                    for name in ('00_method', '00_core', '01_late', '01a_later'))]:
        assert fault in lines, lines
    assert [line for line in lines if line.startswith('wmtp/old_name.py:1:8: F401')]
    assert len(lines) == 18, lines

    (nbs/'01_late.ipynb').write_text('{')
    assert [line for line in faults() if line.startswith('nbs/01_late.ipynb is not valid JSON')]

def test_the_checker_is_a_command(small_tree):
    command = [sys.executable, 'scripts/check_notebooks.py']
    (small_tree[0]/'scripts').mkdir()
    for name in ('check_notebooks', 'check_package', 'check_pages', 'make_footers', 'make_readme'):
        shutil.copy(ROOT/'scripts'/f'{name}.py', small_tree[0]/'scripts')
    run = lambda: subprocess.run(command, cwd=small_tree[0], capture_output=True, text=True)
    good = run()
    assert (good.returncode, good.stdout) == (0, 'notebooks: valid, clean, in step, in order\n'), good
    (small_tree[0]/'README.md').write_text('old')
    bad = run()
    assert (bad.returncode, bad.stdout) == (1, 'README.md is not what nbs/index.ipynb gives\n'), bad

def test_what_a_reader_would_stumble_over_is_found(small_tree):
    root, faults = small_tree
    page = ('[core](../00_core.ipynb#State-mask), [core](../00_core.ipynb#state-mask), [web](https://x.y#z), '
            '`12a`, $12a$ and 10 notebooks of 12 are no faults\n\n[gone](../gone.ipynb), '
            '[part](../00_core.ipynb#part), see 12a, notebook 00, (conventions 3)')
    write(root/'nbs'/'1_data'/'12a_page.ipynb', cell('markdown', SUMMARY), cell('markdown', page),
          code('x = 1\nx', value('1')), code('x'), code('str()', value("''")), code('#| hide\nx'),
          code('print()'), code("'a'", value("'/home/somebody/wmtp/a'")), code('y = ' + '1 + ' * 30 + '1'),
          code('def f():\n    "Two (conventions 3)."'), code('dict()', value("{'a': 1,\n 'b': 2}")))
    for k in range(15): write(root/'nbs'/'1_data'/f'13_{k}.ipynb', cell('markdown', SUMMARY))
    (root/'README.md').write_text('[part](nbs/none.ipynb)')
    make_footers.write(root)
    lines, name = faults(), 'nbs/1_data/12a_page.ipynb'
    assert [line.partition(f'{name} ')[2] for line in lines if line.startswith(name)] == [
        'links to ../gone.ipynb, which is not there',
        'links to ../00_core.ipynb#part, which has no such heading',
        "mentions '12a' without a link", "mentions '00' without a link",
        "mentions 'conventions 3' without a link",
        'ends cell 3 in a value and shows nothing', 'ends cell 4 in a value and shows nothing',
        'shows /home/somebody/wmtp/a in cell 7',
        f'has 125 characters, at most 110, in a line of cell 8: {"y = " + "1 + " * 9}',
        "says 'conventions 3' in the code of cell 9",
        'shows a dictionary over several lines in cell 10; make it a table',
        'is not in the contents of the index'], lines
    assert '1_data/ holds 16 notebooks, at most 15' in lines
    assert 'README.md links to nbs/none.ipynb, which is not there' in lines

def test_rooms_that_outgrow_the_house_are_found(small_tree):
    root, faults = small_tree
    jail = 'from ..core import InputError\nfrom ..data.schema import problem_id\n'
    for name, text in {'sandbox/jail.py': jail, 'data/schema.py': 'x = 1\n' * 351}.items():
        (root/'wmtp'/name).parent.mkdir()
        (root/'wmtp'/name).write_text(text)
    lines = faults()
    assert 'wmtp/data/schema.py has 351 lines, at most 350' in lines
    assert [line for line in lines if line.startswith('wmtp/data holds 351 of ')]
    assert not [line for line in lines if line.startswith('wmtp/sandbox holds')]
    assert 'wmtp/sandbox/jail.py imports data; sandbox needs but core' in lines

def test_footers_follow_the_numbers(small_tree):
    root, _ = small_tree
    for name in ('00_method', '2_models/20_mtp', '1_data/10a_b', '1_data/10_a', 'appendix/config/05_x'):
        (root/'nbs'/name).parent.mkdir(parents=True, exist_ok=True)
        write(root/'nbs'/f'{name}.ipynb', cell('markdown', SUMMARY))
    make_footers.write(root)
    cells = lambda name: json.loads((root/'nbs'/f'{name}.ipynb').read_text())['cells']
    footer = lambda name: ''.join(cells(name)[-1]['source'])
    before = (root/'nbs'/'1_data'/'10a_b.ipynb').read_bytes()
    assert footer('1_data/10a_b') == ('---\nprevious: [10_a](10_a.ipynb) · up: [index](../index.ipynb) · '
                                      'next: [20_mtp](../2_models/20_mtp.ipynb)')
    assert footer('00_method') == '---\nup: [index](index.ipynb) · next: [00_core](00_core.ipynb)'
    assert footer('00_core') == ('---\nprevious: [00_method](00_method.ipynb) · up: [index](index.ipynb) · '
                                 'next: [10_a](1_data/10_a.ipynb)')
    assert footer('appendix/config/05_x') == '---\nup: [index](../../index.ipynb)'
    make_footers.write(root)
    assert (root/'nbs'/'1_data'/'10a_b.ipynb').read_bytes() == before

def test_the_readme_is_the_page_without_hidden_cells(tmp_path):
    (tmp_path/'scripts').mkdir()
    shutil.copy(ROOT/'scripts'/'make_readme.py', tmp_path/'scripts')
    picture = {'data': {'image/png': 'iVBORw0KGgo='}, 'metadata': {}, 'output_type': 'display_data'}
    write(tmp_path/'nbs'/'index.ipynb',
          cell('markdown', '# wmtp\n\n[core](00_core.ipynb#a), [licence](../LICENSE), [web](https://x.y), '
                           '[part](#a)'),
          code('#| hide\nimport secret'), code('#| eval: false\nshown = 1') | {'outputs': [picture]})
    run = lambda *args: subprocess.run([sys.executable, 'scripts/make_readme.py', *args], cwd=tmp_path,
                                       capture_output=True, text=True)
    (tmp_path/'README.md').write_text('old')
    assert run('--check').returncode == 1
    assert run().returncode == 0 and run('--check').returncode == 0
    text = (tmp_path/'README.md').read_text()
    assert '[core](nbs/00_core.ipynb#a), [licence](LICENSE), [web](https://x.y), [part](#a)' in text
    assert 'shown = 1' in text and 'secret' not in text and '#|' not in text and '![' not in text

READS = ["p.read_text()", "p.write_text(x)", "open(p)", "open(p, 'a')", "p.open('w')", "gzip.open(p, 'rt')",
         "os.fdopen(3, 'r+')", "NamedTemporaryFile('w')", "subprocess.run(c, text=True)"]
SAYS = [*(line.replace('()', '(*a)')[:-1] + ", encoding='utf-8')" for line in READS), "open(p, 'rb')",
        "p.open('wb')", "gzip.open(p)", "os.open(p, 0)", "NamedTemporaryFile()", "subprocess.run(c)",
        "p.read_text('utf-8')"]

def test_text_in_the_encoding_of_the_locale_is_found(small_tree):
    root, faults = small_tree
    (root/'scripts').mkdir()
    (root/'scripts'/'read.py').write_text('\n'.join([*READS, *SAYS]))
    found = [line for line in faults() if 'reads or writes text' in line]
    assert found == [f"scripts/read.py:{n + 1} reads or writes text; say encoding='utf-8'"
                     for n in range(len(READS))]

def imported_names(path):
    "(module, name) of each `from wmtp... import name` in a file."
    return [(node.module, alias.name) for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
            if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('wmtp')
            for alias in node.names]

@pytest.mark.parametrize('path', sorted((ROOT/'scripts').rglob('*.py')), ids=lambda path: path.stem)
def test_a_script_imports_only_what_the_package_has(path):
    for module, name in imported_names(path):
        assert hasattr(importlib.import_module(module), name), f'{path.name}: {module} has no {name}'
