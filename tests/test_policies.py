"""The policies' commands as processes: kill and resume, LoRA, the hand-off of a critic, two ranks, memory."""
import json
import random
import shutil
from functools import partial
from pathlib import Path

import pytest
from commands import Running, bits, run, run_ranks, steps

from wmtp.pipelines.setup import tiny_settings

def tiny(run, folder, *changes):
    "Settings of 16 steps that save every four."
    return tiny_settings(run, folder, 'training.max_steps=16', 'training.eval_every_steps=8',
                         'training.eval_max_batches=6', 'training.lr_warmup_steps=2',
                         'checkpoint.save_every_steps=4', 'runtime.log_every_steps=8', *changes)


def best(folder): return json.loads((folder/'summary.json').read_text())['checkpoint']['best']


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    "A critic with an MLflow run, a reference, and where they are."
    home = tmp_path_factory.mktemp('given')
    env = {'MLFLOW_TRACKING_URI': f'sqlite:///{home}/mlflow.db'}
    done = run('critic', settings=tiny('critic', home/'critic', 'mlflow.enabled=true'), **env)
    assert done.returncode == 0, done.stderr
    done = run('baseline', settings=tiny('baseline', home/'reference', 'models.policy.n_future_tokens=1',
                                         'models.policy.n_layers=2'))
    assert done.returncode == 0, done.stderr
    return home, env, json.loads((home/'critic'/'mlflow.json').read_text())['run_id']


def settings_of(arm, home):
    "The run of an arm, and what it needs beside the tiny settings."
    critic = f'models.value_model.checkpoint_path={home}/critic'
    reference = f"models.reference.path={best(home/'reference')}"
    return {'baseline': ('baseline', []), 'verifiable': ('verifiable', [critic, 'weighting.target_ess=.8']),
            'rho1': ('rho1', [reference]), 'rho1_batch': ('rho1', [reference, 'rho1.scope=batch']),
            'path': ('verifiable', [critic, 'weighting.head_weight=path', 'weighting.normalize=mean_one']),
            'reward_conditioned': ('baseline', ['data.labels=both', 'data.state_outcome=true'])}[arm]


def lora(home):
    "Settings of a LoRA on the reference's network."
    return ['data.max_length=256', f"models.policy.path={best(home/'reference')}",
            'models.policy.lora.enabled=true', 'models.policy.lora.rank=2',
            'models.policy.checkpointing=selective']


@pytest.mark.parametrize('arm', ['baseline', 'verifiable', 'rho1', 'reward_conditioned'])
def test_killed_and_resumed_is_bit_identical(arm, given, tmp_path):
    name, own = settings_of(arm, given[0])
    whole = run(name, settings=tiny(name, tmp_path/'whole', *own))
    assert whole.returncode == 0, whole.stderr
    assert 'takes the right turn at the mistake' in whole.stdout and 'report.html' in whole.stdout
    kill_at, settings = random.Random(arm).randint(5, 14), tiny(name, tmp_path/'run', *own)
    Running(name, settings=settings).until(lambda: steps(tmp_path/'run') >= kill_at).kill()
    resumed = run(name, '--resume', 'auto', settings=settings)
    assert resumed.returncode == 0, resumed.stderr
    assert bits(tmp_path/'run') == bits(tmp_path/'whole')


def test_a_critic_by_its_mlflow_address(given, tmp_path):
    home, env, run_id = given
    for kind, source in (('path', f'{home}/critic'), ('uri', f'runs:/{run_id}/checkpoints/best')):
        settings = tiny('verifiable', tmp_path/kind, f'models.value_model.checkpoint_path={source}',
                        'training.max_steps=4', 'training.eval_every_steps=4')
        done = run('verifiable', settings=settings, **env)
        assert done.returncode == 0, done.stderr
    assert bits(tmp_path/'path') == bits(tmp_path/'uri')
    about = json.loads((Path(best(tmp_path/'uri'))/'wmtp.json').read_text())
    assert about['critic']['class_prior'] == pytest.approx(.5, abs=.1)
    assert about['critic']['mlflow_run_id'] == run_id


def changed_critic(home, folder, **changes):
    "A copy of the critic that says something else about itself, with its manifest renewed."
    from wmtp.runtime.checkpoint import write_manifest
    shutil.copytree(best(home/'critic'), folder)
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
    changes, more, words = REFUSALS[why]
    critic = changed_critic(given[0], tmp_path/'critic', **changes)
    settings = tiny('verifiable', tmp_path/'run', *more, f'models.value_model.checkpoint_path={critic}')
    assert main('verifiable', ['--set', *settings]) == 2 and words in capsys.readouterr().err
    assert not (tmp_path/'run').exists()


def test_a_changed_byte_and_a_missing_critic_are_refused(given, tmp_path, capsys):
    from wmtp.cli import main
    folder = changed_critic(given[0], tmp_path/'critic')
    with (folder/'model.safetensors').open('r+b') as f:
        f.seek(-3, 2)
        f.write(b'\x7f')
    for source, words in ((folder, 'model.safetensors'), (tmp_path/'nowhere', 'there is no folder'),
                         (f"runs:/{'0' * 32}/checkpoints/best", 'no such run')):
        settings = tiny('verifiable', tmp_path/'run', f'models.value_model.checkpoint_path={source}')
        assert main('verifiable', ['--set', *settings]) == 2 and words in capsys.readouterr().err


def test_lora_trains_saves_and_resumes(given, tmp_path):
    own = [*lora(given[0]), 'runtime.dtype=float32', 'training.max_steps=8']
    done = run('baseline', settings=tiny('baseline', tmp_path/'whole', *own))
    assert done.returncode == 0, done.stderr
    assert not (Path(best(tmp_path/'whole'))/'model.safetensors').exists()
    settings = tiny('baseline', tmp_path/'run', *own)
    Running('baseline', settings=settings).until(lambda: (tmp_path/'run'/'step-000004').exists()).kill()
    again = run('baseline', '--resume', 'auto', settings=settings)
    assert again.returncode == 0, again.stderr
    assert bits(tmp_path/'run') == bits(tmp_path/'whole')


def watch(gradient):
    "Have a process print a line when it leaves the group, and keep the gradient of its first step."
    import torch
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor

    from wmtp.runtime.training_loop import TrainingLoop
    leave, update = dist.destroy_process_group, TrainingLoop.update
    whole = lambda x: x.full_tensor() if isinstance(x, DTensor) else x

    def keep_and_update(loop, row):
        if loop.state.step == 0:
            kept = {name: whole(p.grad) for name, p in loop.model.named_parameters() if p.requires_grad}
            if loop.rank == 0: torch.save(kept, gradient)
        update(loop, row)

    dist.destroy_process_group = lambda: (print('left the group'), leave())
    TrainingLoop.update = keep_and_update


def journal(folder):
    "The rows of a run, without what is not known of the data."
    rows = [json.loads(line) for line in (folder/'journal.jsonl').read_text().splitlines()]
    return [{key: x for key, x in row.items() if x not in ('NaN', None)} for row in rows]


@pytest.mark.parametrize('arm', ['critic', 'lora', 'verifiable', 'rho1', 'rho1_batch'])
def test_two_processes_make_the_run_of_one(arm, given, tmp_path):
    "The gradient of step 1 to 1e-6, the losses of 20 steps to 1e-5; each has a share, and all leave it."
    import torch
    special = {'critic': ('critic', []), 'lora': ('baseline', lora(given[0]))}
    name, own = special.get(arm) or settings_of(arm, given[0])
    own = [*own, 'runtime.dtype=float32', 'training.max_steps=20', 'training.eval_every_steps=10',
           'checkpoint.save_every_steps=10']
    one = run(name, settings=tiny(name, tmp_path/'one', *own, 'training.gradient_accumulation_steps=4'),
              first=partial(watch, tmp_path/'gradient-of-one'))
    assert one.returncode == 0, one.stderr
    own += ['training.gradient_accumulation_steps=2', 'runtime.shard=full']
    two = run_ranks(name, settings=tiny(name, tmp_path/'two', *own),
                    first=partial(watch, tmp_path/'gradient-of-two'))
    assert [(done.returncode, 'left the group' in done.stdout) for done in two] == [(0, True)] * 2, two
    one, two = (torch.load(tmp_path/f'gradient-of-{n}') for n in ('one', 'two'))
    assert one.keys() == two.keys()
    for key in one: assert (two[key] - one[key]).norm() <= 1e-6 * one[key].norm(), key
    if arm == 'rho1_batch': return # four thresholds a step: at one of them rounding decides sooner or later
    one, two = journal(tmp_path/'one'), journal(tmp_path/'two')
    losses, others = ([row['train/loss'] for row in rows if 'train/loss' in row] for rows in (one, two))
    assert len(losses) == 20 and others == pytest.approx(losses, rel=1e-5, abs=0)
    for a, b in zip(one, two, strict=True): assert b == pytest.approx(a, rel=2e-5, abs=1e-6), a['step']
    evaluations = [{key: x for key, x in row.items() if '/' in key} for row in two if 'train/loss' not in row]
    summary = json.loads((tmp_path/'two'/'summary.json').read_text())
    assert {key: x for key, x in summary['metrics'].items() if x is not None} in evaluations
