"""Configuration from outside: other folders and checkouts, hostile files, secrets, the installed package."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from wmtp.config.load import config_sha256, load_config, parse_override, project_root
from wmtp.config.load import resolve_path, to_yaml
from wmtp.config.runs import SCHEMAS
from wmtp.config.schema import check_tree
from wmtp.config.strict_yaml import parse_yaml, read_yaml
from wmtp.core import InputError

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted(path for run in SCHEMAS for path in (ROOT/'configs'/run).glob('*.yaml'))

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

def test_a_password_that_comes_through_a_reference_is_refused(monkeypatch):
    for uri in ('https://ann:planted-secret@h', 'https:/ann:planted-secret@h', 'https://h?x=planted-secret'):
        monkeypatch.setenv('WMTP_PLANTED', uri)
        with pytest.raises(InputError, match='mlflow.tracking_uri') as error:
            load_config(None, ['mlflow.tracking_uri=${oc.env:WMTP_PLANTED}'])
        assert 'planted-secret' not in str(error.value)

@pytest.mark.parametrize('uri, message', [
    ('https://ann:planted-secret@host', None), ('postgresql://ann:planted-secret@db/x?ssl=on', None),
    ('http://ann:planted-secret@127.0.0.1:5000', None),
    ('http://ann:planted-secret@host', 'over plain http to host'),
    ('http://host/?token=planted-secret', 'over plain http to host'),
    ('https:/ann:planted-secret@host', 'none of the forms'),
    ('ann:planted-secret@host:5000', 'none of the forms'),
    ('https://ann:planted%40secret/@host', 'none of the forms'),
    ('ftp://ann:planted-secret@host', 'none of the forms')])
def test_an_address_in_the_environment_may_hold_a_password(monkeypatch, uri, message):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', uri)
    if message is None:
        assert 'planted' not in to_yaml(load_config())
        return
    with pytest.raises(InputError, match=message) as error: load_config()
    assert 'MLFLOW_TRACKING_URI' in str(error.value) and 'planted' not in str(error.value)

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

WRITTEN = { # run -> {key: [(as people write it, what it means)]}, in one configuration
    'critic': [('training.max_steps', '1e3', 1000), ('data.max_length', '1_000', 1000),
               ('training.tokens_per_batch', '"700"', 700), ('training.n_epochs', '3', 3.),
               ('data.packing', 'True', True), ('data.max_samples', '~', None), ('data.valid', 'None', None),
               ('critic.loss', 'MSE', 'mse'), ('runtime.device', '0', 'cuda:0'),
               ('mlflow.experiment', '2024', '2024'), ('data.train', '/tmp/a=b.jsonl', '/tmp/a=b.jsonl')],
    'evaluate': [('benchmark.pass_at', '[1, 5]', '1 5'), ('benchmark.max_tasks', 'null', None),
                 ('runtime.device', 'CUDA', 'cuda'), ('mlflow.experiment', '"a=b: c"', 'a=b: c')],
    'baseline': [('mtp.head_coefficients', '1 .5 1e-1 0', '1 0.5 0.1 0')]}
REFUSED = [ # (key of the critic, as people write it, part of the error)
    ('runtime.seed', '007', 'write it without zeros in front'),
    ('data.packing', 'yes', 'wanted true or false'), ('training.learning_rate', '0,5', 'without commas'),
    ('training.max_grad_norm', '.inf', 'means no limit'),
    ('data.packing', '1', 'wanted true or false'), ('critic.loss', 'mes', 'did you mean mse?'),
    ('runtime.device', 'gpu', 'auto, cpu, mps, cuda or cuda:N'), ('data.max_samples', 'all', 'or null'),
    ('training.max_steps', '[1, 5]', 'wanted a whole number'), ('runtime.seed', 'true', 'a whole number')]

def as_tree(key, written):
    "The YAML text of a file that sets one key."
    group, name = key.split('.')
    return f'{group}:\n  {name}: {written}'

@pytest.mark.parametrize('run', WRITTEN)
def test_what_people_write_has_its_obvious_meaning(tmp_path, run):
    groups = {}
    for key, written, _ in WRITTEN[run]:
        group, name = key.split('.')
        groups.setdefault(group, [f'extends: {run}_local.yaml'] * (not groups) + [f'{group}:'])
        groups[group].append(f'  {name}: {written}')
    file = tmp_path/'mine.yaml'
    file.write_text('\n'.join(line for lines in groups.values() for line in lines))
    by_set = [f'{key}={written}' for key, written, _ in WRITTEN[run]]
    for cfg in (load_config(file, run=run), load_config(None, by_set, run)):
        for key, written, meant in WRITTEN[run]:
            assert repr(OmegaConf.select(cfg, key)) == repr(meant), (key, written)

def test_what_has_no_one_meaning_is_refused_in_one_line():
    schema = SCHEMAS['critic']
    for key, written, fault in REFUSED:
        for tree in (parse_yaml(as_tree(key, written)), parse_override(f'{key}={written}', schema)):
            with pytest.raises(InputError, match=re.escape(key)) as error: check_tree(tree, schema, 'x.yaml')
            assert fault in str(error.value) and '\n' not in str(error.value), (key, str(error.value))

NAMES = ['2024', '007', '1e5', '1_000', 'True', 'yes', 'null', 'None', '1.10', 'a: b', '~x', '.5', '1:30']

def test_any_name_comes_back_from_the_saved_configuration():
    schema = SCHEMAS['critic']
    for name in NAMES:
        tree = check_tree(parse_override(f'mlflow.experiment="{name}"', schema), schema, '--set')
        assert check_tree(parse_yaml(to_yaml(OmegaConf.create(tree))), schema, 'run.yaml') == tree
        assert tree == {'mlflow': {'experiment': name}}

def test_a_file_from_windows_says_the_same(tmp_path):
    text = 'extends: critic_local.yaml\ntraining:\n  max_steps: 7   \n'
    (tmp_path/'mine.yaml').write_text(text)
    (tmp_path/'windows.yaml').write_bytes(('\ufeff' + text.replace('\n', '\r\n')).encode())
    assert load_config(tmp_path/'windows.yaml') == load_config(tmp_path/'mine.yaml')

def test_the_last_of_two_settings_counts_and_the_home_folder_is_meant():
    cfg = load_config(None, ['runtime.seed=1', 'runtime.seed=2', 'data.train=~/rows.jsonl'])
    assert cfg.runtime.seed == 2 and cfg.data.train == str(Path.home()/'rows.jsonl')
    with pytest.raises(InputError, match='~nobody-of-that-name/rows.jsonl: there is no home folder'):
        load_config(None, ['data.train=~nobody-of-that-name/rows.jsonl'])

FILES = { # content of a configuration file -> the error
    '# nothing\n': 'the file holds nothing', '- a\n': 'the file holds a list', 'critic\n': 'a single value',
    'extends: mine.yaml': 'extends goes in a circle', 'extends: .': "extends is '.', a folder",
    'extends: [a, b]': 'extends is', 'extends: critic_local': 'with .yaml',
    'extends: critic_local.yaml\ntraining:\n': 'put keys under it, or take the line out',
    'extends: critic_local.yaml\ntraining:\n\tmax_steps: 1\n': 'mine.yaml:3: not valid YAML: a tab',
    'extends: baseline.yaml': "extends is 'baseline.yaml'; wanted", 'run: rho1': 'configuration of wmtp_rho1',
}

def test_a_file_that_is_no_configuration_of_this_run_says_why(tmp_path):
    file = tmp_path/'mine.yaml'
    for text, fault in FILES.items():
        file.write_text(text)
        with pytest.raises(InputError, match='mine.yaml') as error: load_config(file)
        assert fault in str(error.value) and '\n' not in str(error.value), (text, str(error.value))
    for name, fault in {str(tmp_path): 'is a folder', 'baseline': 'it is one of wmtp_baseline',
                        'x' * 300: 'there is no configuration', '/' + 'x' * 300: 'there is no file'}.items():
        with pytest.raises(InputError, match=fault): load_config(name)

def test_a_file_of_somebody_else_is_one_line(tmp_path):
    if os.geteuid(): pytest.skip('only root can take the place of somebody else')
    file = Path(tempfile.mkdtemp(dir='/tmp'))/'mine.yaml'
    os.chmod(file.parent, 0o755)
    file.write_text('extends: critic_local.yaml\n')
    os.chmod(file, 0)
    os.seteuid(65534)
    try:
        with pytest.raises(InputError, match='mine.yaml: cannot be read .Permission denied'): read_yaml(file)
    finally: os.seteuid(0)
    shutil.rmtree(file.parent)

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
    (tmp_path/'run.yaml').write_text(to_yaml(cfg))
    assert config_sha256(load_config(tmp_path/'run.yaml', run=path.parent.name)) == config_sha256(cfg)
    assert str(ROOT) not in to_yaml(cfg)

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
    assert check.stdout.startswith(f'# wmtp_critic: configs/critic/critic_local.yaml, config {sha256[:12]}\n')
    unknown = python('-m', 'wmtp.cli', 'critc', '--check')
    assert (unknown.returncode, unknown.stdout) == (2, '')
    assert unknown.stderr.startswith("wmtp: error: argument command: invalid choice: 'critc' (choose from ")
    assert unknown.stderr.count('\n') == 1


def test_what_a_report_of_a_fault_holds(tmp_path):
    "From any folder: version, machine and packages, without a path; `--version` loads no PyTorch."
    done = python('-m', 'wmtp.cli', 'env', cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, '') and str(ROOT) not in done.stdout
    version = python('-X', 'importtime', '-m', 'wmtp.cli', '--version')
    assert done.stdout.startswith(version.stdout.strip()) and 'torch 2.' in done.stdout
    assert 'torch' not in version.stderr
