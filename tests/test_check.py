"""`--check` of all five commands: where values come from, all that is missing; nothing is loaded or made."""
import json
import re
import shutil
from pathlib import Path

import pytest
from commands import run
from omegaconf import OmegaConf

from wmtp.config.load import config_sha256, load_config
from wmtp.core import InputError
from wmtp.data.tokenizer import load_tokenizer
from wmtp.pipelines.check import judged_policy
from wmtp.pipelines.handoff import INDEX_CONVENTION
from wmtp.pipelines.identity import protected_keys

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT/'storage'/'datasets'/'microcode'/'tokenizer.model'
RUNS = 'critic', 'baseline', 'verifiable', 'rho1', 'evaluate'
MTP = {'model_type': 'wmtp_mtp', 'dim': 32, 'n_layers': 5, 'n_heads': 2, 'vocab_size': 768,
       'hidden_dim': 64, 'n_future_tokens': 4, 'max_seq_len': 2048}
VALUE = {'model_type': 'wmtp_value', 'head': 'linear', 'backbone_config': {
    'vocab_size': 768, 'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 2,
    'num_attention_heads': 2}}


def hollow(folder, fields, **about):
    "A model or checkpoint folder with everything but weights: whoever loads it fails."
    folder.mkdir(parents=True)
    (folder/'config.json').write_text(json.dumps(fields))
    (folder/'model.safetensors').write_bytes(b'no weights')
    shutil.copy(TOKENIZER, folder)
    if about:
        (folder/'wmtp.json').write_text(json.dumps(about))
        (folder/'manifest.json').write_text('{}')
    return folder


@pytest.fixture
def models(tmp_path):
    "For each run the settings with which nothing is missing."
    sha256 = load_tokenizer(TOKENIZER).sha256
    critic = hollow(tmp_path/'models'/'critic'/'step-000010', VALUE, what='critic', tokenizer_sha256=sha256,
                    index_convention=INDEX_CONVENTION, gamma=1., prob_values=True)
    (critic.parent/'checkpoints.json').write_text('{"best": "step-000010", "last": "step-000010"}')
    policy = hollow(tmp_path/'models'/'policy', MTP)
    own = {run: ['checkpoint.save_dir=' + str(tmp_path/'run')] for run in RUNS[:4]}
    own['baseline'].append(f'models.policy.path={policy}')
    own['verifiable'].append(f'models.value_model.checkpoint_path={critic.parent}')
    own['rho1'].append(f'models.reference.path={policy}')
    own['evaluate'] = [f'save_dir={tmp_path}/run', f'models.policy.checkpoint_path={policy}',
                       f'models.value_model.checkpoint_path={critic}']
    return own


def check(name, settings, *args, tmp_path, **env):
    "The finished command, its lines that say NO; what lies in the test's folder is the same after it."
    before = sorted(tmp_path.rglob('*'))
    done = run(name, *args, '--check', settings=settings, MLFLOW_TRACKING_URI=f'sqlite:///{tmp_path}/ml/m.db',
               **env)
    assert sorted(tmp_path.rglob('*')) == before
    return done, re.findall('^# NO  (.+?): ', done.stdout, re.M)


@pytest.mark.parametrize('name', RUNS)
def test_nothing_is_missing(name, models, tmp_path):
    done, missing = check(name, models[name], tmp_path=tmp_path)
    assert (done.returncode, missing, done.stderr) == (0, [], ''), done.stdout
    cfg = load_config(None, models[name], name)
    assert done.stdout.startswith(f'# wmtp_{name}: configs/{name}/{name}_local.yaml, config '
                                  f'{config_sha256(cfg)[:12]}\n')
    layers = {*re.findall(r'  # (\S+)$', done.stdout, re.M)}
    assert layers == {'defaults.yaml', f'{name}.yaml', f'{name}_local.yaml', '--set'}
    assert '# ok  memory: 0.' in done.stdout
    (tmp_path/'saved.yaml').write_text(done.stdout)
    assert config_sha256(load_config(tmp_path/'saved.yaml', run=name)) == config_sha256(cfg)


MISSING = { # run -> what is missing, and a command that makes one of them
    'critic': ({'data.train': 'nowhere.jsonl', 'data.valid': 'nowhere.jsonl', 'runtime.device': 'cuda:77',
                'tokenizer.path': 'nowhere.model'}, 'give another with --set tokenizer.path=PATH'),
    'baseline': ({'data.train': 'storage/datasets/codecontests/processed/nowhere.jsonl',
                  'models.policy.path': 'nowhere'},
                 'python scripts/setup_datasets.py codecontests --tokenizer'),
    'verifiable': ({'data.train': 'nowhere.jsonl', 'models.value_model.checkpoint_path': 'nowhere',
                    'models.value_model.backbone_path': 'storage/models/Sheared-LLaMA-2.7B/nowhere'},
                   'hf download princeton-nlp/Sheared-LLaMA-2.7B --local-dir'),
    'rho1': ({'tokenizer.path': 'nowhere', 'models.reference.path': 'storage/models/micro-reference/no'},
             'python scripts/make_micro_models.py --only reference'),
    'evaluate': ({'models.policy.checkpoint_path': 'nowhere', 'models.policy.base_path': 'nowhere',
                  'models.value_model.checkpoint_path': 'nowhere'}, 'give another with --set models.policy')}


@pytest.mark.parametrize('name', MISSING)
def test_all_that_is_missing_is_listed_with_what_makes_it(name, models, tmp_path):
    gone, command = MISSING[name]
    done, missing = check(name, [*models[name], *(f'{k}={v}' for k, v in gone.items())], tmp_path=tmp_path)
    assert done.returncode == 2 and sorted(missing) == sorted(gone), done.stdout
    assert re.search(f'^#     {re.escape(command)}', done.stdout, re.M), done.stdout
    assert done.stderr.count('\n') == 1 and all(key in done.stderr for key in gone)
    assert '# ok  memory: ' in done.stdout


def changed(path, **fields): path.write_text(json.dumps(json.loads(path.read_text()) | fields))


UNFIT = { # run -> (file below models/, fields, what the finding says)
    'verifiable': ('critic/step-000010/wmtp.json', {'gamma': .9}, 'was trained with gamma 0.9'),
    'baseline': ('policy/config.json', {'vocab_size': 700}, 'the tokenizer has 768 ids, the policy 700'),
    'rho1': ('policy/config.json', {'model_type': 'clip'}, 'wanted a causal language model'),
    'evaluate': ('critic/step-000010/wmtp.json', {'what': 'policy'}, 'wanted a critic')}


@pytest.mark.parametrize('name', UNFIT)
def test_what_is_there_and_does_not_fit_is_found_by_its_metadata(name, models, tmp_path):
    file, fields, fault = UNFIT[name]
    changed(tmp_path/'models'/file, **fields)
    done, missing = check(name, models[name], tmp_path=tmp_path)
    assert done.returncode == 2 and len(missing) == 1 and fault in done.stdout, done.stdout


def test_a_device_in_words_decides_the_exit_code(models, tmp_path):
    done, missing = check('baseline', models['baseline'], '--device-memory', '1MB', tmp_path=tmp_path)
    assert (done.returncode, missing) == (1, ['memory']) and done.stderr.count('\n') == 1
    assert re.search(r'^# NO  memory: 0\.\d+ of 0\.000931 GiB do not fit \(model 0\.', done.stdout, re.M)
    done, missing = check('baseline', [*models['baseline'], 'runtime.shard=full'], '--device-memory', '24GB',
                          '--ranks', '8', tmp_path=tmp_path)
    assert (done.returncode, missing) == (0, []) and 'GiB, each with a share of 8 (model ' in done.stdout


SHALLOW = 'models.policy.n_layers=5'  # of Meta's width
ALL = SHALLOW, 'models.policy.lora.enabled=false'
AT_SIZE = { # what is asked of 20 GiB a device: run, settings, devices -> exit code, line on memory
    'all weights': ('baseline', ALL, 1, 1,
                    r'NO  memory: 25\.7 of 20 GiB do not fit \(model 4\.75, AdamW 9\.49, '),
    'in shares': ('baseline', (*ALL, 'runtime.shard=full'), 8, 0,
                  r'ok  memory: 8\.31 of 20 GiB, each with a share of 8 \(model 0\.593, AdamW 1\.19, '),
    'LoRA and critic': ('verifiable', (SHALLOW,), 1, 0,
                        r'ok  memory: .* of 20 GiB \(model 2\..*critic 4\.88'),
    'an evaluation': ('evaluate', (), 1, 1,
                      r'NO  memory: 46\.7 of 20 GiB do not fit \(model 12\.6, cache 29\.2, ')}
HELP = {'baseline': ['--set models.policy.lora.enabled=true', '--set runtime.shard=full on 2 devices'],
        'evaluate': ['--set generation.batch_size=8']}


@pytest.mark.parametrize('case', AT_SIZE)
def test_a_machine_in_words_is_judged_where_neither_weights_nor_data_are(case, tmp_path):
    name, settings, ranks, code, line = AT_SIZE[case]
    done, missing = check(name, settings, '--config', name, '--device-memory', '20GiB', '--ranks', ranks,
                          tmp_path=tmp_path)
    assert done.returncode == code and re.search(f'^# {line}', done.stdout, re.M), done.stdout + done.stderr
    assert missing == ['memory'] * code
    if not any((ROOT/'storage').glob('*/llama-7b-mtp')):
        assert re.search(r'^# --  models.policy\.\w*path: on this machine there is no ', done.stdout, re.M)
    if code: assert re.findall('^#     (--set .*): ', done.stdout, re.M) == HELP[name]


def test_going_on_is_checked_too(models, tmp_path):
    save_dir = tmp_path/'run'
    cfg = load_config(None, [*models['critic'], 'runtime.seed=1'])
    identity = {key: OmegaConf.select(cfg, key) for key in protected_keys('critic')}
    saved = hollow(save_dir/'step-000010', {}, identity=identity)
    (save_dir/'checkpoints.json').write_text('{"best": null, "last": "step-000010"}')
    for resume, fault in (('auto', 'cannot resume: '), (saved, 'runtime.seed 1 -> 0'),
                          (tmp_path/'nowhere', 'nowhere is not a folder'),
                          (tmp_path/'models', 'add --set checkpoint.save_dir=')):
        done, missing = check('critic', models['critic'], '--resume', resume, tmp_path=tmp_path)
        assert (done.returncode, missing) == (2, ['--resume']) and fault in done.stdout, done.stdout
    done, missing = check('critic', models['critic'], tmp_path=tmp_path)
    assert done.returncode == 0 and 'an earlier run there is moved aside' in done.stdout


def test_what_comes_from_the_environment_is_not_shown_and_lines_are_short(models, tmp_path):
    settings = ['mlflow.experiment=${oc.env:WMTP_PLANTED}', 'data.train=${oc.env:WMTP_PLANTED}.jsonl',
                f'checkpoint.save_dir={tmp_path.parents[1]}/${{oc.env:WMTP_PLANTED}}/run']
    first, second = (check('critic', settings, tmp_path=tmp_path, WMTP_PLANTED='planted-secret')[0]
                     for _ in range(2))
    assert first.stdout == second.stdout and 'planted-secret' not in first.stdout + first.stderr
    assert re.search(r'  experiment: \$\{oc.env:WMTP_PLANTED\} +# --set, environment\n', first.stdout)
    assert 'NO  data.train: there is no file ${oc.env:WMTP_PLANTED}.jsonl' in first.stdout
    assert max(map(len, first.stdout.splitlines())) <= 110


def test_the_policy_under_a_lora_is_looked_for_by_the_rule_of_the_run(tmp_path):
    "A recorded folder outside storage/ is refused here as it is when the run opens it."
    reference = {'path': str(tmp_path/'base'), 'sha256': {'model.safetensors': '0' * 64}}
    for name in ('adapter', 'base'): (tmp_path/name).mkdir()
    (tmp_path/'adapter'/'adapter_config.json').write_text('{}')
    (tmp_path/'adapter'/'base.json').write_text(json.dumps(reference))
    paths = {'models.policy.checkpoint_path': tmp_path/'adapter', 'models.policy.base_path': None}
    with pytest.raises(InputError, match='outside .*; give models.policy.base_path to say'):
        judged_policy(paths)
    paths['models.policy.base_path'] = tmp_path/'base'
    assert judged_policy(paths) == (str(tmp_path/'adapter'), tmp_path/'adapter')
