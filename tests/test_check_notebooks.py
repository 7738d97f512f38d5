"""The checker of notebooks must find what it is there to find: each fault is planted in a copy of the tree."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

def cell(kind, source, **more):
    return {'cell_type': kind, 'id': 'a1', 'metadata': {}, 'source': [source]} | more

def code(source): return cell('code', source, execution_count=None, outputs=[])

def write(path, *cells):
    nb = {'cells': [*cells], 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5}
    path.write_text(json.dumps(nb, indent=1, sort_keys=True, ensure_ascii=False) + '\n', encoding='utf-8')

def test_planted_faults_are_found(tmp_path):
    for name in ('scripts', 'wmtp', 'nbs'): (tmp_path/name).mkdir()
    for path in (ROOT/'scripts').glob('*.py'): shutil.copy(path, tmp_path/'scripts')
    for name in ('settings.ini', 'pyproject.toml', 'nbs/00_core.ipynb', 'wmtp/core.py'):
        shutil.copy(ROOT/name, tmp_path/name)
    check = lambda: subprocess.run([sys.executable, 'scripts/check_notebooks.py'], cwd=tmp_path,
                                   capture_output=True, text=True)
    good = check()
    assert (good.returncode,
            good.stdout) == (0, '1 notebooks: valid, clean, in step, in order\n'), good.stdout + good.stderr

    nbs, summary = tmp_path/'nbs', cell('markdown', '**한글 요약.** 요약')
    (tmp_path/'wmtp'/'core.py').write_text((ROOT/'wmtp'/'core.py').read_text(encoding='utf-8') + '\nx = 1\n',
                                           encoding='utf-8')
    (tmp_path/'wmtp'/'old_name.py').write_text('import os\n')
    write(nbs/'01_late.ipynb', summary, code('#| default_exp late'),
          code('#| export\nfrom wmtp.later import y'))
    write(nbs/'01a_later.ipynb', code('#| default_exp later'),
          code('#| export\nfrom wmtp.core import InputError\nimport wmtp.nothing\ny = 1'))
    write(nbs/'index.ipynb', summary, code('#| hide\n1') | {'execution_count': 3})
    (tmp_path/'README.md').write_text('old')
    bad = check()
    assert bad.returncode == 1
    for fault in ['nbs/01_late.ipynb imports wmtp.later from 01a_later.ipynb, which does not come before it',
                  'nbs/01a_later.ipynb imports wmtp.nothing, which no notebook exports',
                  'nbs/01a_later.ipynb has no 한글 요약',
                  'nbs/index.ipynb is not clean', 'wmtp/core.py differs from its notebook',
                  'wmtp/old_name.py comes from no notebook',
                  'wmtp/old_name.py:1:8: F401', 'wmtp/late.py has not been exported',
                  'README.md is not what nbs/index.ipynb gives']:
        assert fault in bad.stdout, bad.stdout + bad.stderr
    assert len(bad.stdout.splitlines()) == 10, bad.stdout

    (nbs/'01_late.ipynb').write_text('{')
    assert 'nbs/01_late.ipynb is not valid JSON' in check().stdout

def test_the_readme_is_the_page_without_hidden_cells(tmp_path):
    for name in ('scripts', 'nbs'): (tmp_path/name).mkdir()
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
