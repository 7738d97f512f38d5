"""Models that runs have trained, opened by transformers alone: Auto classes, and exported Llamas."""
import gzip
import json
import re
import sys

import pytest
import torch
from commands import run
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

import wmtp.models  # noqa: F401  registers our classes
from wmtp.config.load import project_root
from wmtp.data.tokenizer import load_tokenizer
from wmtp.evaluation.generate import generate
from wmtp.models.causal_lm import open_causal_lm
from wmtp.models.value_model import ValueModel
from wmtp.pipelines.setup import tiny_settings
from wmtp.runtime.checkpoint import read_manifest, read_names

sys.path.insert(0, str(project_root()/'scripts'))
from export_llama import export  # noqa: E402

PROBLEMS = project_root()/'storage/datasets/microcode/problems.jsonl.gz'
N_NEW = 24  # tokens


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "The checkpoints of three short runs: a policy, a LoRA on that policy, a critic."
    home, folders = tmp_path_factory.mktemp('runs'), {}
    steps = ['training.max_steps=40', 'training.eval_every_steps=40', 'training.eval_max_batches=2',
             'runtime.dtype=float32', 'report.n_examples=1']

    def train(name, command, *own):
        done = run(command, settings=tiny_settings(command, home/name, *steps, *own))
        assert done.returncode == 0, done.stderr
        folders[name] = home/name/read_names(home/name)['last']

    train('policy', 'baseline', 'models.policy.n_future_tokens=3', 'training.learning_rate=3e-3')
    train('lora', 'baseline', f"models.policy.path={folders['policy']}", 'models.policy.lora.enabled=true',
          'models.policy.lora.rank=4', 'training.learning_rate=1e-2')
    train('critic', 'critic')
    return folders


def first_prompts(n):
    with gzip.open(PROBLEMS, 'rt', encoding='utf-8') as lines:
        return [json.loads(next(lines))['instruction'] + '\n' for _ in range(n)]


def opened(trained, kind):
    "A policy through our own door, its LoRA merged."
    return open_causal_lm(trained[kind], base=trained['policy'] if kind == 'lora' else None).network


def test_auto_classes_open_what_a_run_has_written(trained):
    "The same numbers as our own classes, and head 1's greedy text by transformers' generate."
    tokenizer = load_tokenizer(trained['policy'])
    ids = torch.randint(tokenizer.vocab_size, (2, 40))
    theirs, ours = AutoModelForCausalLM.from_pretrained(trained['policy']), opened(trained, 'policy')
    critic = AutoModel.from_pretrained(trained['critic'])
    assert [AutoConfig.from_pretrained(trained[name]).model_type for name in ('policy', 'critic')] == [
        'wmtp_mtp', 'wmtp_value']
    with torch.no_grad():
        assert torch.equal(theirs(ids).logits, ours(ids))
        assert torch.equal(critic(ids), ValueModel.from_checkpoint(trained['critic'])(ids))
    prompts = first_prompts(5)
    for prompt, own in zip(prompts, generate(ours, tokenizer, prompts, N_NEW), strict=True):
        row = torch.tensor([[*tokenizer.prefix_ids, *tokenizer.encode(prompt)]])
        text = theirs.generate(row, max_new_tokens=N_NEW, do_sample=False, eos_token_id=tokenizer.eos_id,
                               pad_token_id=tokenizer.eos_id)[0, row.shape[1]:].tolist()
        assert [i for i in text if i != tokenizer.eos_id] == own.ids


@pytest.mark.parametrize('kind, head', [('policy', 1), ('policy', 3), ('lora', 1), ('lora', 2)])
def test_an_exported_head_is_the_policys(kind, head, trained, tmp_path):
    "A plain Llama with the logits of that head; the one of head 1 writes the same 20 texts."
    policy, tokenizer = opened(trained, kind), load_tokenizer(trained[kind])
    export(trained[kind], head, tmp_path/'llama', trained['policy'] if kind == 'lora' else None)
    llama = AutoModelForCausalLM.from_pretrained(tmp_path/'llama').eval()
    assert type(llama) is LlamaForCausalLM
    ids = torch.randint(tokenizer.vocab_size, (2, 60))
    with torch.no_grad():
        logits = policy(ids, return_all_heads=True)
        torch.testing.assert_close(llama(ids).logits, logits[:, :, head - 1], rtol=1e-4, atol=1e-4)
        if kind == 'lora':  # merged: it is another model than the one below
            assert (logits - opened(trained, 'policy')(ids, return_all_heads=True)).abs().max() > .1
    if head > 1: return
    words, prompts = AutoTokenizer.from_pretrained(tmp_path/'llama'), first_prompts(20)
    for prompt, own in zip(prompts, generate(policy, tokenizer, prompts, N_NEW), strict=True):
        ids = words(prompt, return_tensors='pt')['input_ids']
        assert ids.tolist() == [[*tokenizer.prefix_ids, *tokenizer.encode(prompt)]]
        assert words.decode(ids[0], skip_special_tokens=True) == prompt
        theirs = llama.generate(ids, max_new_tokens=N_NEW, do_sample=False)[0, ids.shape[1]:].tolist()
        assert [i for i in theirs if i != tokenizer.eos_id] == own.ids


def test_every_checkpoint_has_a_card(trained):
    "The Hub's reader takes it, and what it says about opening the folder works, word for word."
    for kind, folder in trained.items():
        card = ModelCard.load(folder/'README.md')
        assert 'README.md' in read_manifest(folder)
        assert card.data.license == ('other' if kind == 'lora' else 'apache-2.0'), kind
        assert 'head 1 ' in card.text or kind == 'critic'
        code = re.search(r'```python\n(.*?)```', card.text, re.S)[1]
        names = {'FOLDER': folder, 'BASE': trained['policy']}
        exec(code, names)
        assert type(names['critic' if kind == 'critic' else 'policy']).__module__.startswith('wmtp.models')
        assert names['tokenizer'].encode('return')
