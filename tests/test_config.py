"""Configuration seen from outside: other folders, hostile files, secrets on their way to disk, the installed package."""
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wmtp.config.load import check_paths, config_sha256, load_config, project_root, to_yaml
from wmtp.core import InputError

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted(p for p in (ROOT/'configs').glob('*/*.yaml'))

def run_python(code, cwd, **env):
    return subprocess.run([sys.executable, '-c', code], cwd=cwd, env=os.environ | env, capture_output=True,
                          text=True)

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
    with pytest.raises(InputError, match=key) as error: load_config(None, [f'{key}=${{oc.env:WMTP_PLANTED}}'])
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
    start = time.perf_counter()
    with pytest.raises(InputError, match='mine.yaml') as error: load_config(path)
    assert time.perf_counter() - start < 1
    assert '\n' not in str(error.value) and len(str(error.value)) < 400
    assert list(tmp_path.iterdir()) == [path]

def test_the_same_configuration_from_any_folder(tmp_path):
    code = 'from wmtp.config.load import *; print(config_sha256(load_config()), project_root())'
    here = run_python(code, ROOT)
    assert here.returncode == 0, here.stderr
    for folder in (ROOT/'storage', tmp_path): assert run_python(code, folder).stdout == here.stdout
    assert here.stdout.split() == [config_sha256(load_config()), str(project_root())]

def test_a_typed_path_starts_where_it_was_typed(tmp_path):
    (tmp_path/'rows.jsonl').write_text('{}\n')
    code = "from wmtp.config.load import *; c = load_config(None, ['data.train=rows.jsonl']); print(resolve_path(c.data.train), c.data.train)"
    assert run_python(code, tmp_path).stdout.split() == [str(tmp_path/'rows.jsonl')] * 2
    assert run_python(code, ROOT/'storage').stdout.split() == [str(ROOT/'storage'/'rows.jsonl'),
                                                               'storage/rows.jsonl']

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
