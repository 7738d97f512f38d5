"""Configuration from outside: other folders and checkouts, hostile files, secrets, the installed package."""
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wmtp.config.load import check_paths, config_sha256, load_config, project_root, resolve_path, to_yaml
from wmtp.core import InputError

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted(p for p in (ROOT/'configs').glob('*/*.yaml'))

def python(*arguments, cwd=ROOT, **env):
    "A Python process of its own."
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, env=os.environ | env,
                          capture_output=True, text=True)

def test_a_secret_from_the_environment_reaches_no_text(monkeypatch, tmp_path):
    secret = 's3cr3t-' + os.urandom(8).hex()
    monkeypatch.setenv('WMTP_PLANTED', secret)
    path = tmp_path/'mine.yaml'
    path.write_text('extends: critic_local.yaml\nmlflow:\n  experiment: ${oc.env:WMTP_PLANTED}\n'
                    '  tracking_uri: sqlite:///${oc.env:WMTP_PLANTED}.db\n')
    cfg = load_config(path)
    assert cfg.mlflow.experiment == secret
    assert secret not in to_yaml(cfg) and secret not in repr(cfg)
    assert '${oc.env:WMTP_PLANTED}' in to_yaml(cfg)
    assert load_config(path) == cfg

@pytest.mark.parametrize('key', ['training.max_steps', 'runtime.device', 'critic.loss', 'mlflow.enabled'])
def test_an_error_about_a_secret_does_not_repeat_it(monkeypatch, key):
    monkeypatch.setenv('WMTP_PLANTED', 'planted-secret')
    with pytest.raises(InputError, match=key) as error:
        load_config(None, [f'{key}=${{oc.env:WMTP_PLANTED}}'])
    assert 'planted-secret' not in str(error.value) and '\n' not in str(error.value)

@pytest.mark.parametrize('reference', ['${${oc.env:WMTP_PLANTED}}', '${oc.env:${oc.env:WMTP_PLANTED}}',
                                       '${oc.decode:${oc.env:WMTP_PLANTED}}'])
def test_an_error_about_a_nested_reference_does_not_repeat_it_either(monkeypatch, reference):
    monkeypatch.setenv('WMTP_PLANTED', '[planted-secret')
    with pytest.raises(InputError, match='mlflow.experiment') as error:
        load_config(None, [f'mlflow.experiment={reference}'])
    assert 'planted-secret' not in str(error.value) and '\n' not in str(error.value)

def test_a_password_that_comes_through_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv('WMTP_PLANTED', 'https://ann:planted-secret@host')
    with pytest.raises(InputError, match='mlflow.tracking_uri') as error:
        load_config(None, ['mlflow.tracking_uri=${oc.env:WMTP_PLANTED}'])
    assert 'planted-secret' not in str(error.value)
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'https://ann:planted-secret@host')
    with pytest.raises(InputError, match='MLFLOW_TRACKING_URI') as error: load_config()
    assert 'planted-secret' not in str(error.value)

def test_plain_http_with_credentials_is_refused_unless_opted_in(monkeypatch):
    monkeypatch.setenv('MLFLOW_TRACKING_PASSWORD', 'x')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://10.1.2.3:5000')
    with pytest.raises(InputError, match='plain http to 10.1.2.3'): load_config()
    load_config(None, ['mlflow.allow_insecure=true'])
    load_config(None, ['mlflow.enabled=false'])

HOSTILE = {
    'bomb': 'a0: &a0 [x, x, x, x, x, x, x, x, x]\n' +
            '\n'.join(f'a{i}: &a{i} [' + ', '.join([f'*a{i - 1}'] * 9) + ']' for i in range(1, 30)),
    'merge bomb': 'a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nc: {<<: [*b, *b]}',
    'deep': '{a: ' * 50_000,
    'object': 'run: !!python/object/apply:os.system ["touch planted"]',
    'pathlib': 'checkpoint:\n  save_dir: !!python/object/apply:pathlib.Path [/tmp]',
    'digits': 'runtime:\n  seed: ' + '9' * 900_000,
    'large': 'run: critic\n' + '#' * 2_000_000,
    'references': 'extends: critic_local.yaml\ncheckpoint: {save_dir: "' + '${' * 200 + '"}',
    'empty': '',
    'binary': '\x00\x01\x02',
    'circle': 'extends: mine.yaml',
}

@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files_are_refused_in_one_line_within_a_second(tmp_path, name):
    path = tmp_path/'mine.yaml'
    path.write_text(HOSTILE[name])
    start = time.process_time()
    with pytest.raises(InputError, match='mine.yaml') as error: load_config(path)
    assert time.process_time() - start < 1
    assert '\n' not in str(error.value) and len(str(error.value)) < 400
    assert list(tmp_path.iterdir()) == [path]

def test_the_same_configuration_from_any_folder(tmp_path):
    code = ('import os, sys; from wmtp.config.load import *\n'
            'for f in sys.argv[1:]: os.chdir(f); print(config_sha256(load_config()), project_root())')
    done = python('-c', code, ROOT, ROOT/'storage', tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [config_sha256(load_config()), str(project_root())] * 3

def test_a_typed_path_starts_where_it_was_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = load_config(None, ['data.train=rows.jsonl']).data.train
    assert typed == str(tmp_path/'rows.jsonl') == str(resolve_path(typed))
    monkeypatch.chdir(ROOT/'storage')
    typed = load_config(None, ['data.train=rows.jsonl']).data.train
    assert typed == 'storage/rows.jsonl' and resolve_path(typed) == ROOT/'storage'/'rows.jsonl'

@pytest.mark.parametrize('path', SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_file_loads_and_loads_again_from_its_own_text(path, tmp_path):
    cfg = load_config(path, run=path.parent.name)
    check_paths(cfg, strict=False)
    (tmp_path/'run.yaml').write_text(to_yaml(cfg))
    assert config_sha256(load_config(tmp_path/'run.yaml', run=path.parent.name)) == config_sha256(cfg)
    assert str(ROOT) not in to_yaml(cfg)

def test_a_missing_path_of_ones_own_fails_even_a_mere_check(tmp_path):
    path = tmp_path/'mine.yaml'
    path.write_text('extends: critic.yaml\ndata:\n  train: nowhere.jsonl\n')
    with pytest.raises(InputError, match='data.train: there is no file .*nowhere.jsonl'):
        check_paths(load_config(path), strict=False)

@pytest.fixture(scope='module')
def second(tmp_path_factory):
    "A second checkout, and what an installed package made from it would hold."
    checkout, installed = tmp_path_factory.mktemp('two')/'checkout', tmp_path_factory.mktemp('site-packages')
    for name in ('wmtp', 'vendor', 'configs'):
        shutil.copytree(ROOT/name, checkout/name, ignore=shutil.ignore_patterns('__pycache__', 'reference'))
    for name in ('settings.ini', 'setup.py', 'README.md'): shutil.copy(ROOT/name, checkout)
    done = python('setup.py', '-q', 'build_py', '--build-lib', installed, cwd=checkout)
    assert done.returncode == 0, done.stderr
    return checkout, installed

WHERE = """
import json, os, sys
def locate(folder):
    "Where Python finds the parts of wmtp, that folder before all others."
    sys.path.insert(0, folder)
    for name in [name for name in sys.modules if name.partition('.')[0] == 'wmtp']: del sys.modules[name]
    import wmtp.vendor.meta_llama.tokenizer
    from wmtp.config.load import config_folder, load_config, project_root
    assert load_config().run == 'critic'
    vendored = wmtp.vendor.meta_llama.tokenizer
    return [wmtp.__file__, vendored.__file__, str(config_folder()), str(project_root())]
print(json.dumps([locate(folder) for folder in sys.argv[2:]]))
os.chdir(sys.argv[1])
try: locate(sys.argv[2])
except Exception as e: print(type(e).__name__, e)
"""

def test_one_checkout_one_code(second, tmp_path):
    "Package, vendored code and configurations come from the same place, whatever else is installed."
    checkout, installed = second
    done = python('-c', WHERE, ROOT, checkout, installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    places, refusal = done.stdout.splitlines()
    of_checkout, of_package = json.loads(places)
    assert of_checkout == [f'{checkout}/wmtp/__init__.py', f'{checkout}/vendor/meta_llama/tokenizer.py',
                           f'{checkout}/configs', str(checkout)]
    assert of_package == [f'{installed}/wmtp/__init__.py', f'{installed}/wmtp/vendor/meta_llama/tokenizer.py',
                          f'{installed}/wmtp/configs', str(tmp_path)]
    assert refusal.startswith(f'InputError the current folder is in the checkout {ROOT}, '
                              f'but wmtp is imported from {checkout}; ')

def test_the_module_is_the_command():
    "`python -m wmtp.cli RUN ...` is `wmtp_RUN ...`: help, check, exit codes; an unknown run is one line."
    command = 'import sys; from wmtp.cli import critic; sys.exit(critic())'
    page = python('-m', 'wmtp.cli', 'critic', '--help')
    assert page.returncode == 0 and page.stdout == python('-c', command, '--help').stdout
    check = python('-m', 'wmtp.cli', 'critic', '--check', '--set', 'runtime.seed=7')
    sha256 = config_sha256(load_config(None, ['runtime.seed=7']))
    assert (check.returncode, check.stderr) == (0, '')
    assert f'is good (config {sha256[:12]}); nothing was loaded' in check.stdout
    unknown = python('-m', 'wmtp.cli', 'critc', '--check')
    assert (unknown.returncode, unknown.stdout) == (2, '')
    assert unknown.stderr == ("wmtp.cli: error: there is no run 'critc'; "
                              "wanted one of critic, baseline, verifiable, rho1, evaluate\n")
