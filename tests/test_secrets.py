"""A planted secret is searched for in everything that the five commands print and leave behind."""
import json
import os

import pytest
from commands import run

from wmtp.pipelines.setup import tiny_settings

SECRET = 'hunter2-planted'
PASSWORD = 'pw-0f-ann'


def traces(folder, done, *secrets):
    "Where a secret is found: names of files, 'stdout', 'stderr'."
    texts = {'stdout': done.stdout.encode(), 'stderr': done.stderr.encode()}
    texts |= {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}
    return sorted({name for name, text in texts.items() for secret in secrets if secret.encode() in text})


@pytest.mark.parametrize('name', ['critic', 'baseline', 'verifiable', 'rho1', 'evaluate'])
@pytest.mark.parametrize('debug', ['0', '1'])
def test_a_path_that_is_a_secret_is_not_in_the_error(name, debug, tmp_path):
    key = 'models.policy.checkpoint_path' if name == 'evaluate' else 'data.train'
    for value in ('${oc.env:PLANTED}', 'a/${oc.env:${oc.env:WHICH}}/b', '${oc.env:NO,${oc.env:PLANTED}}'):
        done = run(name, settings=tiny_settings(name, tmp_path/'run', f'{key}={value}'),
                   PLANTED=SECRET, WHICH='PLANTED', WMTP_DEBUG=debug)
        assert done.returncode == 2 and key in done.stderr, done.stderr
        assert not traces(tmp_path, done, SECRET, 'hunter2')


def test_a_run_in_a_folder_named_by_a_secret_names_it_nowhere(tmp_path):
    "The folder has the name, as was asked for; nothing in it or printed has."
    place = tmp_path/SECRET
    settings = [*tiny_settings('baseline', '${oc.env:PLACE}/run', 'mlflow.experiment=of ${oc.env:PLANTED}'),
                'mlflow.enabled=true']
    done = run('baseline', settings=settings, PLACE=str(place), PLANTED='wh0-knows',
               MLFLOW_TRACKING_URI=f'sqlite:///{tmp_path}/mlflow/x.db', MLFLOW_TRACKING_PASSWORD=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert '${oc.env:PLACE}/run/report.html' in done.stdout
    summary = json.loads((place/'run'/'summary.json').read_text())
    assert summary['checkpoint']['best'].startswith('${oc.env:PLACE}/run/step-')
    assert not traces(place, done, SECRET, 'wh0-knows', PASSWORD)
    # the experiment was to have that name: MLflow's own database is the one place for it
    assert traces(tmp_path/'mlflow', done, 'wh0-knows') == ['x.db']
    assert not traces(tmp_path/'mlflow', done, SECRET, PASSWORD)


def test_a_run_by_an_address_with_a_password_writes_it_nowhere(tmp_path):
    uri = f'http://ann:{PASSWORD}@127.0.0.1:9/?token={PASSWORD}'
    settings = [*tiny_settings('critic', tmp_path/'run', 'training.max_steps=1'), 'mlflow.enabled=true']
    done = run('critic', settings=settings, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0 and 'MLflow at http://127.0.0.1:9' in done.stderr, done.stderr
    assert 'does not answer' in done.stderr and 'None' not in done.stderr
    assert not traces(tmp_path, done, PASSWORD)


def test_a_deleted_experiment_is_said_to_be_deleted(tmp_path):
    from mlflow import MlflowClient
    uri = f'sqlite:///{tmp_path}/x.db'
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment('wmtp'))
    done = run('critic', settings=[*tiny_settings('critic', tmp_path/'run'), 'mlflow.enabled=true'],
               MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
    assert 'experiment wmtp was deleted: restore it (`mlflow experiments restore' in done.stderr


def test_secrets_are_not_tracked():
    import subprocess
    from commands import ROOT
    ignored = ['.env', '.env.vessl', 'mlruns/x', 'mlflow.db', 'storage/mlflow/mlflow.db', 'storage/runs/x']
    done = subprocess.run(['git', 'check-ignore', *ignored], cwd=ROOT, capture_output=True, text=True)
    if not os.path.exists(ROOT/'.git'): pytest.skip('no checkout')
    assert done.stdout.split() == ignored
