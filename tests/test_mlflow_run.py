"""`mlflow run` on the project: the run that it opens is the one that is filled."""
import os
import subprocess
import sys
from pathlib import Path

from commands import ROOT

from wmtp.pipelines.setup import tiny_settings


def test_mlflow_run_fills_the_run_that_it_opens(tmp_path):
    from mlflow import MlflowClient
    uri = f'sqlite:///{tmp_path}/mlflow.db'
    client = MlflowClient(uri)
    artifacts = (tmp_path/'artifacts').as_uri()
    experiment_id = client.create_experiment('project', artifacts)
    pairs = ' '.join(tiny_settings('critic', tmp_path/'run', 'training.max_steps=2', 'mlflow.enabled=true'))
    command = [sys.executable, '-m', 'mlflow', 'run', '.', '-e', 'critic', '--env-manager', 'local',
               '--experiment-name', 'project', '-P', f'set={pairs}']
    env = {'MLFLOW_TRACKING_URI': uri, 'MLFLOW_DISABLE_TELEMETRY': 'true',
           'PATH': f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, encoding='utf-8')
    assert done.returncode == 0, done.stderr
    [run] = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert (run.info.experiment_id, run.info.status) == (experiment_id, 'FINISHED')
    assert run.data.params['training.max_steps'] == '2' and pairs in run.data.params['set']
    assert run.data.tags['wmtp.folder'] == 'run' and run.data.tags['mlflow.project.entryPoint'] == 'critic'
    assert run.data.tags['mlflow.source.type'] == 'PROJECT'
    assert run.data.tags['mlflow.note.content'].startswith('critic, seed')
    [read] = run.inputs.dataset_inputs
    assert (read.dataset.name, read.tags[0].value) == ('test.jsonl.gz', 'training and validation')
    assert 'value/brier' in run.data.metrics
    assert {a.path for a in client.list_artifacts(run.info.run_id)} >= {'run.yaml', 'report.html'}
