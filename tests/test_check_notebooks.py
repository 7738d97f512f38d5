"""The checker of notebooks must find what it is there to find: each fault is planted in a small tree."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

from nbdev.export import nb_export

ROOT = Path(__file__).resolve().parents[1]
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

def small_tree(root):
    "A checkout of an index and one notebook, `00_core`, and a function that runs a script in it."
    for name in ('scripts', 'wmtp', 'nbs'): (root/name).mkdir()
    for path in (ROOT/'scripts').glob('*.py'): shutil.copy(path, root/'scripts')
    for name in ('settings.ini', 'pyproject.toml'): shutil.copy(ROOT/name, root/name)
    write(root/'nbs'/'00_core.ipynb', cell('markdown', f'# Core\n\n## State mask\n{SUMMARY}'),
          code('#| default_exp core'), code('#| export\nclass InputError(ValueError): pass'))
    write(root/'nbs'/'index.ipynb', cell('markdown', SUMMARY))
    (root/'README.md').write_text(SUMMARY + '\n', encoding='utf-8')
    nb_export(root/'nbs'/'00_core.ipynb', lib_path=root/'wmtp')
    return lambda script, *args: subprocess.run([sys.executable, f'scripts/{script}.py', *args], cwd=root,
                                                capture_output=True, text=True)

def test_planted_faults_are_found(tmp_path):
    run = small_tree(tmp_path)
    run('make_footers')
    good = run('check_notebooks')
    assert (good.returncode, good.stdout) == (0, '2 notebooks: valid, clean, in step, in order\n'), good

    nbs, wmtp = tmp_path/'nbs', tmp_path/'wmtp'
    (wmtp/'core.py').write_text((wmtp/'core.py').read_text() + '\nx = 1\n')
    (wmtp/'old_name.py').write_text('import os\n')
    write(nbs/'01_late.ipynb', cell('markdown', SUMMARY), code('#| default_exp late'),
          code('#| export\nfrom wmtp.later import y'))
    write(nbs/'01a_later.ipynb', code('#| default_exp later'),
          code('#| export\nfrom wmtp.core import InputError\nimport wmtp.nothing\ny = 1'))
    write(nbs/'index.ipynb', cell('markdown', SUMMARY), code('#| hide\n1') | {'execution_count': 3})
    (tmp_path/'README.md').write_text('old')
    bad = run('check_notebooks')
    assert bad.returncode == 1
    lines = bad.stdout.splitlines()
    for fault in ['nbs/01_late.ipynb imports wmtp.later from 01a_later.ipynb, which does not come before it',
                  'nbs/01a_later.ipynb imports wmtp.nothing, which no notebook exports',
                  'nbs/01a_later.ipynb has no 한글 요약',
                  'nbs/index.ipynb is not clean', 'wmtp/core.py differs from its notebook',
                  'wmtp/old_name.py comes from no notebook',
                  'wmtp/old_name.py:1:8: F401', 'wmtp/late.py has not been exported',
                  'README.md is not what nbs/index.ipynb gives']:
        assert fault in bad.stdout, bad.stdout + bad.stderr
    assert len([line for line in lines if 'footer' not in line]) == 10, bad.stdout
    assert len([line for line in lines if 'footer' in line]) == 3, bad.stdout # 00_core has a successor now

    (nbs/'01_late.ipynb').write_text('{')
    assert 'nbs/01_late.ipynb is not valid JSON' in run('check_notebooks').stdout

def test_what_a_reader_would_stumble_over_is_found(tmp_path):
    run = small_tree(tmp_path)
    page = ('[core](../00_core.ipynb#State-mask), [core](../00_core.ipynb#state-mask), [web](https://x.y#z), '
            '`12a`, $12a$ and 10 notebooks of 12 are no faults\n\n[gone](../gone.ipynb), '
            '[part](../00_core.ipynb#part), see 12a, notebook 00, (conventions 3)')
    silent = value("''")
    write(tmp_path/'nbs'/'1_data'/'12a_page.ipynb', cell('markdown', SUMMARY), cell('markdown', page),
          code('x = 1\nx', value('1')), code('x'), code('str()', silent), code('#| hide\nx'), code('print()'),
          code("'a'", value("'/home/somebody/wmtp/a'")), code('y = ' + '1 + ' * 30 + '1'),
          code('def f():\n    "Two (conventions 3)."'))
    for k in range(15): write(tmp_path/'nbs'/'1_data'/f'13_{k}.ipynb', cell('markdown', SUMMARY))
    (tmp_path/'README.md').write_text('[part](nbs/none.ipynb)')
    run('make_footers')
    lines = run('check_notebooks').stdout.splitlines()
    name = 'nbs/1_data/12a_page.ipynb'
    assert [line.partition(f'{name} ')[2] for line in lines if line.startswith(name)] == [
        'links to ../gone.ipynb, which is not there',
        'links to ../00_core.ipynb#part, which has no such heading',
        "mentions '12a' without a link", "mentions '00' without a link",
        "mentions 'conventions 3' without a link",
        'ends cell 3 in a value and shows nothing', 'ends cell 4 in a value and shows nothing',
        'shows /home/somebody/wmtp/a in cell 7',
        f'has 125 characters, at most 110, in a line of cell 8: {"y = " + "1 + " * 9}',
        "says 'conventions 3' in the code of cell 9"], lines
    assert '1_data/ holds 16 notebooks, at most 15' in lines
    assert 'README.md links to nbs/none.ipynb, which is not there' in lines

def test_rooms_that_outgrow_the_house_are_found(tmp_path):
    run = small_tree(tmp_path)
    run('make_footers')
    jail = 'from ..core import InputError\nfrom ..data.schema import problem_id\n'
    for name, text in {'sandbox/jail.py': jail, 'data/schema.py': 'x = 1\n' * 351}.items():
        (tmp_path/'wmtp'/name).parent.mkdir()
        (tmp_path/'wmtp'/name).write_text(text)
    faults = run('check_notebooks').stdout
    assert 'wmtp/data/schema.py has 351 lines, at most 350' in faults
    assert 'wmtp/data holds 351 of ' in faults and 'wmtp/sandbox holds' not in faults
    assert 'wmtp/sandbox/jail.py imports data; sandbox needs but core' in faults

def test_footers_follow_the_numbers(tmp_path):
    run = small_tree(tmp_path)
    for name in ('2_models/20_mtp', '1_data/10a_b', '1_data/10_a', 'appendix/config/05_x'):
        (tmp_path/'nbs'/name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path/'nbs'/f'{name}.ipynb', cell('markdown', SUMMARY))
    run('make_footers')
    cells = lambda name: json.loads((tmp_path/'nbs'/f'{name}.ipynb').read_text())['cells']
    footer = lambda name: ''.join(cells(name)[-1]['source'])
    before = (tmp_path/'nbs'/'1_data'/'10a_b.ipynb').read_bytes()
    assert footer('1_data/10a_b') == ('---\nprevious: [10_a](10_a.ipynb) · up: [index](../index.ipynb) · '
                                      'next: [20_mtp](../2_models/20_mtp.ipynb)')
    assert footer('00_core') == '---\nup: [index](index.ipynb) · next: [10_a](1_data/10_a.ipynb)'
    assert footer('appendix/config/05_x') == '---\nup: [index](../../index.ipynb)'
    run('make_footers')
    assert (tmp_path/'nbs'/'1_data'/'10a_b.ipynb').read_bytes() == before

def test_the_readme_is_the_page_without_hidden_cells(tmp_path):
    run = small_tree(tmp_path)
    picture = {'data': {'image/png': 'iVBORw0KGgo='}, 'metadata': {}, 'output_type': 'display_data'}
    write(tmp_path/'nbs'/'index.ipynb',
          cell('markdown', '# wmtp\n\n[core](00_core.ipynb#a), [licence](../LICENSE), [web](https://x.y), '
                           '[part](#a)'),
          code('#| hide\nimport secret'), code('#| eval: false\nshown = 1') | {'outputs': [picture]})
    (tmp_path/'README.md').write_text('old')
    assert run('make_readme', '--check').returncode == 1
    assert run('make_readme').returncode == 0 and run('make_readme', '--check').returncode == 0
    text = (tmp_path/'README.md').read_text()
    assert '[core](nbs/00_core.ipynb#a), [licence](LICENSE), [web](https://x.y), [part](#a)' in text
    assert 'shown = 1' in text and 'secret' not in text and '#|' not in text and '![' not in text
