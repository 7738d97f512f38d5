"""wmtp_critic as a process: exit codes, one line for a mistake, kill and resume, secrets, the real sample."""
import gzip
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, Running, bits, real, run, steps

from wmtp.data.tokenizer import load_tokenizer
from wmtp.pipelines.setup import tiny_settings
from wmtp.rows.index import row_lengths

MICROCODE = ROOT/'storage'/'datasets'/'microcode'
FIELDS = ['run', 'seed', 'steps', 'wall_s', 'tokens_per_s', 'metrics', 'checkpoint', 'mlflow_run_id',
          'data_sha256', 'config_sha256']


def tiny(folder, *changes):
    "Settings of 30 steps that save every five."
    return tiny_settings('critic', folder, 'training.max_steps=30', 'training.eval_every_steps=10',
                         'training.lr_warmup_steps=2', 'checkpoint.save_every_steps=5',
                         'runtime.log_every_steps=10', *changes)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "One uninterrupted run: its folder and what it printed."
    folder = tmp_path_factory.mktemp('whole')/'run'
    done = run('critic', settings=tiny(folder))
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_leaves_everything_behind(whole):
    folder, done = whole
    summary = json.loads((folder/'summary.json').read_text())
    assert list(summary) == FIELDS and summary['steps'] == 30
    best, last = (Path(summary['checkpoint'][name]) for name in ('best', 'last'))
    assert best.is_dir() and last.name == 'step-000030'
    assert '<figure>' in (folder/'report.html').read_text() and 'lm_coef' in (folder/'run.yaml').read_text()
    for word in ('pairwise accuracy, last state', 'report.html', 'chance', 'next', '<EOS>'):
        assert word in done.stdout


def test_same_seed_in_a_process_started_anew_is_bit_identical(whole, tmp_path):
    command = real('critic', settings=tiny(tmp_path/'run'))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180,
                          env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert (done.returncode,
            done.stdout.count('report.html')) == (0, whole[1].stdout.count('report.html')), done.stderr
    assert bits(tmp_path/'run') == bits(whole[0])


@pytest.mark.parametrize('seed', [1, 2])
def test_killed_and_resumed_is_bit_identical(whole, tmp_path, seed):
    settings = tiny(tmp_path/'run')
    kill_at = random.Random(seed).randint(6, 28)
    Running('critic', settings=settings).until(lambda: steps(tmp_path/'run') >= kill_at).kill()
    resumed = run('critic', '--resume', 'auto', settings=settings)
    assert resumed.returncode == 0, resumed.stderr
    assert bits(tmp_path/'run') == bits(whole[0])


@pytest.mark.parametrize('prefetch', ['false', 'true'])
def test_sigterm_saves_and_exits_130(whole, prefetch, tmp_path):
    "Batches made ahead by a thread are the same ones, and the thread does not outlive the run."
    settings = tiny(tmp_path/'run', f'runtime.prefetch={prefetch}')
    process = Running('critic', settings=settings).until(lambda: steps(tmp_path/'run') >= 7)
    process.send(signal.SIGTERM)
    done = process.wait(60)
    assert done.returncode == 130 and 'go on with --resume auto' in done.stderr
    assert 'Traceback' not in done.stderr
    assert run('critic', '--resume', 'auto', settings=settings).returncode == 0
    assert bits(tmp_path/'run') == bits(whole[0])


def test_texts_checked_when_read_train_the_same_critic(whole, tmp_path):
    done = run('critic', settings=tiny(tmp_path/'run', 'data.check_rows=as_read',
                                       f'data.index_dir={tmp_path}/indexes'))
    assert done.returncode == 0, done.stderr
    assert bits(tmp_path/'run') == bits(whole[0])


def test_a_fault_found_in_the_middle_of_a_run_is_one_line(tmp_path):
    rows, lines = list(map(json.loads, gzip.open(MICROCODE/'test.jsonl.gz'))), []
    for row, n_tokens in zip(rows,
                             row_lengths(rows, load_tokenizer(MICROCODE/'tokenizer.model'))[1].tolist()):
        row['metadata'] = {name: row['metadata'][name] for name in ('source', 'difficulty', 'has_tests',
                                                                    'problem')}
        row['metadata']['n_tokens'] = n_tokens  # or all texts would be read to count them
        lines.append(json.dumps(row, ensure_ascii=False) + '\n')
    lines[700] = lines[700].replace('"input": "', '"input": "\\x', 1)
    (tmp_path/'rows.jsonl').write_text(''.join(lines))
    done = run('critic', settings=tiny(tmp_path/'run', f'data.train={tmp_path}/rows.jsonl',
                                       'data.check_rows=as_read', 'data.sampling=uniform',
                                       'critic.ranking_coef=0', 'training.max_steps=300'))
    assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr
    assert f'{tmp_path}/rows.jsonl:701: not JSON' in done.stderr and 'data.check_rows=all' in done.stderr
    assert steps(tmp_path/'run') > 5 and all((folder/'wmtp.json').is_file()
                                             for folder in (tmp_path/'run').glob('step-*'))


def test_two_processes_train_one_critic(tmp_path):
    settings = tiny(tmp_path/'run', 'training.max_steps=4', 'training.eval_every_steps=4')
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
              '--no-python', *real('critic', settings=settings)]
    done = subprocess.run(launch, cwd=ROOT, capture_output=True, text=True, timeout=180,
                          env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('pairwise accuracy, last state') == 1
    assert json.loads((tmp_path/'run'/'summary.json').read_text())['steps'] == 4


@pytest.fixture(scope='module')
def llama(tmp_path_factory):
    "A tiny Hugging Face Llama folder."
    from transformers import LlamaConfig, LlamaForCausalLM
    folder = tmp_path_factory.mktemp('llama')/'tiny'
    LlamaForCausalLM(LlamaConfig(vocab_size=800, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                 intermediate_size=64)).save_pretrained(folder)
    return folder


FROZEN = ['models.value_model.freeze_backbone=true', 'critic.lm_coef=0', 'critic.lm_layer=null']
KINDS = {
    'frozen': (FROZEN, True),
    'lora': ([*FROZEN, 'models.value_model.lora.enabled=true', 'models.value_model.lora.rank=2'], True),
    'lambda-return with warm-up': ([*FROZEN, 'critic.use_mc_mse=false', 'critic.use_lambda_return=true',
                                    'critic.eos_warmup_steps=1'], True),
    'ranking only': (['critic.value_coef=0', 'critic.ranking_coef=1', 'critic.use_mc_mse=false'], False),
    'checkpointed, accumulated': (['models.value_model.checkpointing=selective',
                                   'training.gradient_accumulation_steps=2'], False),
}


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_critic_trains_and_is_read_back(kind, llama, tmp_path, capsys):
    from wmtp.cli import main
    from wmtp.models.value_model import ValueModel
    settings, from_folder = KINDS[kind]
    if from_folder: settings = [*settings, f'models.value_model.backbone_path={llama}']
    settings = tiny(tmp_path/'run', *settings, 'training.max_steps=3', 'training.eval_every_steps=3')
    assert main('critic', ['--set', *settings]) == 0, capsys.readouterr().err
    best = Path(json.loads((tmp_path/'run'/'summary.json').read_text())['checkpoint']['best'])
    about = json.loads((best/'wmtp.json').read_text())
    assert about['prob_values'] is (kind != 'ranking only')
    if 'frozen' in kind:
        assert (best/'model.safetensors').stat().st_size < (llama/'model.safetensors').stat().st_size / 5
    ValueModel.from_checkpoint(best, llama if from_folder else None)
    assert main('critic', ['--resume', str(best), '--set', *settings]) == 0


def test_resuming_with_other_data_is_refused(whole, tmp_path, capsys):
    from wmtp.cli import main
    shutil.copytree(whole[0], tmp_path/'run')
    changed = tiny(tmp_path/'run', f'data.valid={MICROCODE}/valid.jsonl.gz')
    assert main('critic', ['--resume', 'auto', '--set', *changed]) == 2
    assert 'data.valid sha256' in capsys.readouterr().err


MISTAKES = {
    'misspelt key': (['training.learning_rat=1e-3'], 'did you mean'),
    'wrong type': (['training.max_steps=many'], 'training.max_steps'),
    'exclusive pair': (['critic.use_mc_mse=true', 'critic.use_lambda_return=true'], 'use_lambda_return'),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(name):
    settings, word = MISTAKES[name]
    done = run('critic', '--check', settings=settings)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.count('\n') == 1 and word in done.stderr


def test_a_bad_line_is_named_and_can_be_skipped(tmp_path):
    lines = gzip.open(ROOT/'storage/datasets/microcode/test.jsonl.gz', 'rt').read().split('\n')[:200]
    (tmp_path/'train.jsonl').write_text('\n'.join([*lines[:2], lines[2][:40], *lines[3:]]) + '\n')
    settings = tiny(tmp_path/'run', f'data.train={tmp_path}/train.jsonl', 'training.max_steps=2')
    done = run('critic', settings=settings)
    assert done.returncode == 2 and 'train.jsonl:3:' in done.stderr and done.stderr.count('\n') == 1
    assert not (tmp_path/'run').exists()
    done = run('critic', '--on-bad-row', 'skip', settings=settings)
    assert done.returncode == 0 and 'lines left out: 1' in done.stdout


@pytest.mark.parametrize('path',
                         ['configs/defaults.yaml',
                          *sorted(str(p.relative_to(ROOT)) for p in (ROOT/'configs').glob('critic/*.yaml'))])
def test_every_shipped_configuration_is_good(path):
    done = run('critic', '--config', path, '--check')
    assert done.returncode == 0 or 'could not start' in done.stderr, done.stderr
    assert '\nrun: critic' in done.stdout


def test_a_secret_is_found_nowhere(tmp_path):
    secret = 'hunter2-planted-secret'
    uri = f'sqlite:///{tmp_path}/mlflow/m.db'
    settings = tiny(tmp_path/'run', 'mlflow.enabled=true', f'mlflow.tracking_uri={uri}',
                    'training.max_steps=4')
    done = run('critic', settings=settings, MLFLOW_TRACKING_PASSWORD=secret, MLFLOW_TRACKING_USERNAME='u')
    assert done.returncode == 0, done.stderr
    assert secret not in done.stdout + done.stderr
    files = [p for p in tmp_path.rglob('*') if p.is_file()]
    assert any(p.name == 'm.db' for p in files) and any(p.name == 'report.html' for p in files)
    assert [p for p in files if secret.encode() in p.read_bytes()] == []
    with sqlite3.connect(tmp_path/'mlflow'/'m.db') as database: # the run was really copied there
        assert database.execute('select count(*) from runs').fetchone() == (1,)


@pytest.mark.skipif('WMTP_REAL_DATA' not in os.environ, reason='WMTP_REAL_DATA is not set')
def test_the_real_sample_with_the_llama_tokenizer(tmp_path):
    sample = os.environ['WMTP_REAL_DATA']
    done = run('critic', settings=tiny(tmp_path/'run', f'data.train={sample}/real_sample_300.jsonl',
                                       f'tokenizer.path={sample}/llama_tokenizer.model',
                                       'training.max_steps=3', 'training.tokens_per_batch=4096',
                                       f'data.index_dir={tmp_path}/indexes'))
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path/'run'/'summary.json').read_text())['metrics']
    assert 0 <= metrics['value/pairwise_last'] <= 1 and metrics['credit/bug_hit@3'] is None
