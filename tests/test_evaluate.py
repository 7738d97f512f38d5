"""wmtp_evaluate as a process: exit codes, kill and restart, two ranks, other models, a critic, no jail."""
import json
import subprocess
import sys
import textwrap

import pytest
import torch
from commands import ROOT, Running, run, run_ranks
from transformers import LlamaConfig, LlamaForCausalLM

from wmtp.config.load import load_config, project_root
from wmtp.core import seed_everything
from wmtp.data.collate import collate, encode_row
from wmtp.data.tokenizer import load_tokenizer
from wmtp.data.schema import read_rows
from wmtp.evaluation.benchmarks import load_benchmark
from wmtp.losses.mtp_loss import compute_mtp_ce_loss
from wmtp.models.lora import add_lora, save_lora
from wmtp.models.mtp import MetaLlamaMTPAdapter
from wmtp.pipelines.evaluate import evaluation_folder
from wmtp.pipelines.setup import absolute_paths, tiny_settings

def settings(policy, folder, *changes):
    return ['--set', *tiny_settings('evaluate', folder, f'models.policy.checkpoint_path={policy}',
                                    'benchmark.max_tasks=10', 'generation.batch_size=2',
                                    'generation.max_new_tokens=100', 'runtime.log_every_steps=1', *changes)]


def summary(folder): return json.loads((folder/'summary.json').read_text())


@pytest.fixture(scope='module')
def policy(tmp_path_factory):
    "A small policy that knows six reference solutions by heart."
    folder, microcode = tmp_path_factory.mktemp('policy'), project_root()/'storage/datasets/microcode'
    tokenizer = load_tokenizer(microcode/'tokenizer.model')
    rows = {row['metadata']['problem']: row for row in read_rows(microcode/'valid.jsonl.gz')[0]
            if row['is_correct']}
    batch = collate([encode_row(rows[task.task_id], tokenizer, 200)
                     for task in load_benchmark('microcode-valid').tasks[:6]], 0, [1.] * 6)
    seed_everything(0)
    model = MetaLlamaMTPAdapter.micro(tokenizer.vocab_size, 64, 5, 2, 128, 256, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(110):
        sums, counts = compute_mtp_ce_loss(model.hidden_states(batch.input_ids), model.output_weight,
                                           batch.labels)
        optimizer.zero_grad()
        (sums / counts).mean().backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope='module')
def whole(policy, tmp_path_factory):
    "An evaluation that nobody disturbed."
    folder = tmp_path_factory.mktemp('whole')/'run'
    done = run('evaluate', *settings(policy, folder))
    assert done.returncode == 0, done.stderr
    assert 'pass@1' in done.stdout and 'report.html' in done.stdout
    assert summary(folder)['metrics']['pass_at_1'] > .3
    return folder


def test_killed_and_restarted(policy, whole, tmp_path):
    "SIGKILL after two units of samples and again among the verdicts: the same files to the last byte."
    for kind, n in (('samples', 2), ('verdicts', 1)):
        process = Running('evaluate', *settings(policy, tmp_path/'run'), '--resume', 'auto')
        process.until(lambda: len(list((tmp_path/'run').glob(f'units/*.{kind}.jsonl'))) >= n, .002).kill()
        assert not (tmp_path/'run'/'summary.json').exists()
    done = run('evaluate', *settings(policy, tmp_path/'run'), '--resume', 'auto')
    assert done.returncode == 0, done.stderr
    for name in ('samples.jsonl', 'verdicts.jsonl'):
        assert (tmp_path/'run'/name).read_bytes() == (whole/name).read_bytes()
    ours, theirs = summary(tmp_path/'run'), summary(whole)
    del ours['config_sha256'], theirs['config_sha256']  # the folder's name is in the configuration
    assert ours == theirs
    other = run('evaluate', *settings(policy, tmp_path/'run', 'generation.temperature=.5'), '--resume',
                'auto')
    assert other.returncode == 2 and 'generation.temperature 0.3 -> 0.5' in other.stderr


def test_two_processes(policy, whole, tmp_path):
    "Ranks share the units; what they find together is what one finds."
    done = run_ranks('evaluate', *settings(policy, tmp_path/'run'))
    assert [d.returncode for d in done] == [0, 0], done
    assert 'pass@1' in done[0].stdout and done[1].stdout == ''
    assert (tmp_path/'run'/'samples.jsonl').read_bytes() == (whole/'samples.jsonl').read_bytes()
    assert summary(tmp_path/'run')['metrics'] == summary(whole)['metrics']


def test_adapter_and_other_models(policy, tmp_path):
    "A LoRA checkpoint writes what its merged model writes; a causal model of Hugging Face writes nonsense."
    seed_everything(1)
    model = add_lora(MetaLlamaMTPAdapter.from_pretrained(policy), 4, 8., 0.)
    for name, p in model.named_parameters():
        if 'lora_B' in name: torch.nn.init.normal_(p, std=.02)
    save_lora(model, tmp_path/'lora')
    (tmp_path/'lora'/'tokenizer.model').write_bytes((policy/'tokenizer.model').read_bytes())
    (tmp_path/'lora'/'config.json').write_text('{}')
    model.merge_and_unload().save_pretrained(tmp_path/'merged')
    (tmp_path/'merged'/'tokenizer.model').write_bytes((policy/'tokenizer.model').read_bytes())
    config = LlamaConfig(vocab_size=900, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=64, max_position_embeddings=256)
    LlamaForCausalLM(config).save_pretrained(tmp_path/'llama')
    (tmp_path/'llama'/'tokenizer.model').write_bytes((policy/'tokenizer.model').read_bytes())
    few = ('benchmark.max_tasks=4', 'generation.max_new_tokens=40')
    for name, base in (('lora', policy), ('merged', 'null'), ('llama', 'null')):
        own = *few, f'models.policy.base_path={base}'
        done = run('evaluate', *settings(tmp_path/name, tmp_path/f'{name}_run', *own))
        assert done.returncode == 0, done.stderr
    texts = [(tmp_path/f'{name}_run'/'samples.jsonl').read_text() for name in ('lora', 'merged')]
    assert texts[0] == texts[1]
    other = summary(tmp_path/'llama_run')
    assert other['metrics']['pass_at_1'] == 0 and other['model']['what'] == 'LlamaForCausalLM'


def test_a_critic_chooses(policy, tmp_path):
    "Best of n by a critic of wmtp_critic; one that reads other ids is refused."
    trained = run('critic',
                  settings=tiny_settings('critic', tmp_path/'critic', 'training.eval_max_batches=2'))
    assert trained.returncode == 0, trained.stderr
    done = run('evaluate',
               *settings(policy, tmp_path/'run', f'models.value_model.checkpoint_path={tmp_path}/critic'))
    assert done.returncode == 0, done.stderr
    m = summary(tmp_path/'run')['metrics']
    assert m['rerank/blind'] == m['pass_at_1'] <= m['rerank/oracle'] == m['pass_at_2']
    assert 0 <= m['rerank/best_of_n'] <= m['rerank/oracle']
    about = tmp_path/'critic'/'step-000004'/'wmtp.json'
    about.write_text(about.read_text().replace('"tokenizer_sha256": "', '"tokenizer_sha256": "0'))
    wrong = run('evaluate',
                *settings(policy, tmp_path/'run2', f"models.value_model.checkpoint_path={tmp_path}/critic"))
    assert wrong.returncode == 2 and wrong.stderr.count('\n') == 1


@pytest.mark.parametrize('changes, words', [
    (['models.policy.checkpoint_path=nowhere'], 'there is no folder'),
    (['models.policy.checkpoint_path=tests'], 'holds no checkpoint'),
    (['benchmark.name=apps'], 'one of microcode'),
    (['benchmark.pass_at=1 20'], 'lower k or raise n_samples'),
    (['generation.temperature=0'], 'the same every time'),
    (['benchmark.path=nowhere'], 'there is no file or folder'),
    (['generation.tempreature=1'], 'did you mean generation.temperature?')])
def test_mistakes_are_one_line(policy, tmp_path, changes, words):
    done = run('evaluate', *settings(policy, tmp_path/'run', *changes))
    assert (done.returncode, done.stderr.count('\n')) == (2, 1) and words in done.stderr
    assert not (tmp_path/'run').exists()


def test_without_a_jail_nothing_runs(policy, tmp_path):
    "On a kernel without Landlock and name spaces, and without bubblewrap: exit code 1, one line, no folder."
    if sys.platform != 'linux': pytest.skip('Linux only')
    code = textwrap.dedent("""
        import os, platform, struct, sys
        from wmtp.sandbox.jail import ALLOW, EQUAL, LOAD, NO_NEW_PRIVS, RETURN, call, set_filter
        absent = [444, {'x86_64': 272, 'aarch64': 97}[platform.machine()]]
        jumps = [(EQUAL, len(absent) - i, 0, number) for i, number in enumerate(absent)]
        program = [(LOAD, 0, 0, 0), *jumps, (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, 0x00050026)]
        call('prctl', NO_NEW_PRIVS, 1, 0, 0, 0)
        set_filter(b''.join(struct.pack('=HBBI', *instruction) for instruction in program))
        os.environ['PATH'] = ''
        from wmtp.cli import evaluate
        sys.exit(evaluate())""")
    done = subprocess.run([sys.executable, '-c', code, *settings(policy, tmp_path/'run')], cwd=ROOT,
                          capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count('\n')) == (1, 1), done.stderr
    assert 'no jail on this machine, so no generated program is run' in done.stderr
    assert not (tmp_path/'run').exists()


def test_help():
    done = run('evaluate', '--help')
    assert done.returncode == 0 and 'torchrun' in done.stdout and 'exit codes' in done.stdout


@pytest.mark.parametrize('config', ['evaluate', 'evaluate_local'])
def test_an_evaluation_is_filed_under_its_policy(config, tmp_path):
    "Each policy has a folder of its own, also a checkpoint or an MLflow run; --set save_dir wins."
    def folder(source, *changes):
        cfg = load_config(config, [f'models.policy.checkpoint_path={source}', *changes], 'evaluate')
        return evaluation_folder(absolute_paths(cfg))
    checkpoints, evaluations = project_root()/'storage/checkpoints', project_root()/'storage/evaluations'
    assert folder(checkpoints/'rho1_local') == evaluations/'rho1_local'
    assert folder(checkpoints/'rho1'/'step-000030') == evaluations/'rho1-step-000030'
    assert folder(f'runs:/{"0a1b" * 8}/checkpoints/best') == evaluations/'0a1b0a1b-best'
    assert folder(checkpoints/'rho1', f'save_dir={tmp_path}') == tmp_path
