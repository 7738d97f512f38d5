"""The policies' commands as processes: exit codes, kill and resume, LoRA, the critic's hand-over, two ranks, memory reckoned without weights."""
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, Running, bits, real, run, steps

TINY = ['data.train=storage/datasets/microcode/test.jsonl.gz', 'data.valid=null',
        'training.tokens_per_batch=900', 'training.max_steps=16',
        'training.eval_every_steps=8', 'training.eval_max_batches=6', 'checkpoint.save_every_steps=4',
        'training.lr_warmup_steps=2',
        'mlflow.enabled=false', 'runtime.log_every_steps=8']
SMALL = ['models.policy.dim=32', 'models.policy.n_heads=2', 'models.policy.n_layers=5',
         'models.policy.hidden_dim=64']
CRITIC = ['models.value_model.hidden_size=32', 'models.value_model.n_layers=2',
          'models.value_model.intermediate_size=64', 'critic.lm_layer=1']


def best(folder): return json.loads((folder/'summary.json').read_text())['checkpoint']['best']


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    "A critic with an MLflow run, a reference, and where they are."
    place = tmp_path_factory.mktemp('given')
    uri = f'sqlite:///{place}/mlflow.db'
    env = {'MLFLOW_TRACKING_URI': uri}
    settings = [s for s in TINY if 'mlflow' not in s]
    done = run('critic', settings=[*settings, *CRITIC, f'checkpoint.save_dir={place}/critic'], **env)
    assert done.returncode == 0, done.stderr
    done = run('baseline', settings=[*TINY, *SMALL, 'models.policy.n_future_tokens=1',
                                     'models.policy.n_layers=2', f'checkpoint.save_dir={place}/reference'])
    assert done.returncode == 0, done.stderr
    return place, env, json.loads((place/'critic'/'mlflow.json').read_text())['run_id']


def settings_of(arm, place):
    "What each arm needs beside the tiny settings."
    critic, reference = f'models.value_model.checkpoint_path={place}/critic', f"models.reference.path={best(place/'reference')}"
    return {'baseline': ('baseline', []), 'verifiable': ('verifiable', [critic, 'weighting.target_ess=.8']),
            'rho1': ('rho1', [reference]),
            'path': ('verifiable', [critic, 'weighting.head_weight=path', 'weighting.normalize=mean_one']),
            'reward_conditioned': ('baseline', ['data.labels=both', 'data.state_outcome=true'])}[arm]


@pytest.mark.parametrize('arm', ['baseline', 'verifiable', 'rho1', 'reward_conditioned'])
def test_killed_and_resumed_is_bit_identical(arm, given, tmp_path):
    name, own = settings_of(arm, given[0])
    settings = [*TINY, *SMALL, *own]
    whole = run(name, settings=[*settings, f'checkpoint.save_dir={tmp_path}/whole'])
    assert whole.returncode == 0, whole.stderr
    assert 'takes the right turn at the mistake' in whole.stdout and 'report.html' in whole.stdout
    kill_at = random.Random(arm).randint(5, 14)
    process = Running(name, settings=[*settings, f'checkpoint.save_dir={tmp_path}/run'])
    process.until(lambda: steps(tmp_path/'run') >= kill_at).kill()
    resumed = run(name, '--resume', 'auto', settings=[*settings, f'checkpoint.save_dir={tmp_path}/run'])
    assert resumed.returncode == 0, resumed.stderr
    assert bits(tmp_path/'run') == bits(tmp_path/'whole')


def test_a_critic_by_its_mlflow_address(given, tmp_path):
    place, env, run_id = given
    settings = [*TINY, *SMALL, 'training.max_steps=4', 'training.eval_every_steps=4']
    folders = {}
    for kind, source in (('path', f'{place}/critic'), ('uri', f'runs:/{run_id}/checkpoints/best')):
        folders[kind] = tmp_path/kind
        done = run('verifiable', settings=[*settings, f'models.value_model.checkpoint_path={source}',
                                           f'checkpoint.save_dir={tmp_path}/{kind}'], **env)
        assert done.returncode == 0, done.stderr
    assert bits(folders['path']) == bits(folders['uri'])
    about = json.loads((Path(best(folders['uri']))/'wmtp.json').read_text())
    assert about['critic']['class_prior'] == pytest.approx(.5, abs=.1)


def changed_critic(place, folder, **changes):
    "A copy of the critic that says something else about itself, with its manifest renewed."
    import shutil

    from wmtp.runtime.checkpoint import write_manifest
    shutil.copytree(best(place/'critic'), folder)
    about = json.loads((folder/'wmtp.json').read_text())
    (folder/'wmtp.json').write_text(json.dumps(about | changes))
    write_manifest(folder)
    return folder


REFUSALS = {'tokenizer': ({'tokenizer_sha256': '0' * 64}, [], 'both must read the same ids'),
            'index convention': ({'index_convention': 'label'}, [], 'has the index convention'),
            'ranking only': ({'prob_values': False}, ['weighting.advantage=mc'], 'no probabilities'),
            'discount': ({'gamma': .9}, [], 'weighting.gamma is 1.0')}


@pytest.mark.parametrize('why', REFUSALS)
def test_a_critic_that_does_not_fit_is_refused(why, given, tmp_path, capsys):
    from wmtp.cli import main
    changes, more, said = REFUSALS[why]
    folder = changed_critic(given[0], tmp_path/'critic', **changes)
    code = main('verifiable', ['--set', *TINY, *SMALL, *more, f'models.value_model.checkpoint_path={folder}',
                               f'checkpoint.save_dir={tmp_path}/run'])
    assert code == 2 and said in capsys.readouterr().err
    assert not (tmp_path/'run').exists()


def test_a_changed_byte_and_a_missing_critic_are_refused(given, tmp_path, capsys):
    from wmtp.cli import main
    folder = changed_critic(given[0], tmp_path/'critic')
    with (folder/'model.safetensors').open('r+b') as f:
        f.seek(-3, 2)
        f.write(b'\x7f')
    for source, said in ((folder, 'model.safetensors'), (tmp_path/'nowhere', 'there is no folder'),
                         (f"runs:/{'0' * 32}/checkpoints/best", 'no such run')):
        code = main('verifiable', ['--set', *TINY, *SMALL, f'models.value_model.checkpoint_path={source}',
                                   f'checkpoint.save_dir={tmp_path}/run'])
        assert code == 2 and said in capsys.readouterr().err


def test_lora_trains_saves_and_resumes(given, tmp_path):
    settings = [*TINY, 'data.max_length=256', f"models.policy.path={best(given[0]/'reference')}",
                'models.policy.lora.enabled=true',
                'models.policy.lora.rank=2', 'runtime.dtype=float32',
                'models.policy.gradient_checkpointing=true', 'training.max_steps=8']
    done = run('baseline', settings=[*settings, f'checkpoint.save_dir={tmp_path}/whole'])
    assert done.returncode == 0, done.stderr
    assert not (Path(best(tmp_path/'whole'))/'model.safetensors').exists()
    process = Running('baseline', settings=[*settings, f'checkpoint.save_dir={tmp_path}/run'])
    process.until(lambda: (tmp_path/'run'/'step-000004').exists()).kill()
    again = run('baseline', '--resume', 'auto', settings=[*settings, f'checkpoint.save_dir={tmp_path}/run'])
    assert again.returncode == 0, again.stderr
    assert bits(tmp_path/'run') == bits(tmp_path/'whole')


@pytest.mark.parametrize('arm', ['verifiable', 'rho1'])
def test_two_processes_make_the_steps_of_one(arm, given, tmp_path):
    name, own = settings_of(arm, given[0])
    shared = [*TINY, *SMALL, *own, 'runtime.dtype=float32', 'training.max_steps=3',
              'training.eval_every_steps=3']
    one = run(name, settings=[*shared, 'training.gradient_accumulation_steps=4',
                              f'checkpoint.save_dir={tmp_path}/one'])
    assert one.returncode == 0, one.stderr
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
              '--no-python',
              *real(name, settings=[*shared, 'training.gradient_accumulation_steps=2',
                                    f'checkpoint.save_dir={tmp_path}/two'])]
    two = subprocess.run(launch, cwd=ROOT, capture_output=True, text=True, timeout=300,
                         env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert two.returncode == 0, two.stderr
    rows = [[json.loads(line) for line in (tmp_path/n/'journal.jsonl').read_text().splitlines()]
            for n in ('one', 'two')]
    for a, b in zip(*rows):
        for key in ('train/loss', 'train/grad_norm', 'weight/ess', 'weight/mean', 'valid/loss'):
            if key in a: assert b[key] == pytest.approx(a[key], rel=2e-5), (key, a['step'])


def test_check_reckons_the_7b_without_its_weights():
    for name in ('baseline', 'verifiable', 'rho1'):
        done = run(name, '--config', name, '--check')
        assert done.returncode == 0, done.stderr
        assert '6,738,' in done.stdout and 'LoRA of rank 64' in done.stdout and 'GiB' in done.stdout
