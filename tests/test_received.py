"""Paths inside files that came from somebody else: which are followed, and what is said of the others."""
import json
import os

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from wmtp.core import InputError
from wmtp.models import weights
from wmtp.models.causal_lm import open_causal_lm
from wmtp.models.lora import add_lora, save_lora
from wmtp.models.mtp import MetaLlamaMTPAdapter
from wmtp.models.value_model import ValueModel
from wmtp.models.weights import weight_files
from wmtp.pipelines.handoff import find_checkpoint
from wmtp.runtime.checkpoint import read_names, verify_checkpoint, write_folder

KEYS = {'lora': 'models.policy.base_path', 'critic': 'models.value_model.backbone_path'}


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A project with a policy and a Llama in storage/, and a LoRA and a critic that were trained on them."
    home = tmp_path_factory.mktemp('project')
    storage = home/'storage'
    torch.manual_seed(0)
    MetaLlamaMTPAdapter.micro(64, 32, 3, 2, 64, 48, 2).save_pretrained(storage/'lora')
    LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                                 intermediate_size=64)).save_pretrained(storage/'critic')
    policy = MetaLlamaMTPAdapter.from_pretrained(storage/'lora')
    save_lora(add_lora(policy, 2, 4., 0.), home/'received'/'lora')
    ValueModel.from_pretrained(storage/'critic').freeze_backbone().save_pretrained(home/'received'/'critic')
    for kind in KEYS:
        os.symlink(storage/kind, home/f'outside-{kind}')
        os.symlink(home/'received', storage/f'link-{kind}')
    return home


def open_received(kind, folder, base=None):
    if kind == 'lora': return open_causal_lm(folder, base=base)
    return ValueModel.from_checkpoint(folder, base)


def refer(kind, folder, change):
    "Let a received checkpoint name its base in another way."
    file = folder/('base.json' if kind == 'lora' else 'config.json')
    fields = json.loads(file.read_text())
    if kind == 'lora': fields = change(fields)
    else: fields['backbone_reference'] = change(fields['backbone_reference'])
    file.write_text(json.dumps(fields))


def moved(path): return lambda reference: reference | {'path': path}


REFERENCES = { # how the base is named -> (change, what is said; None = it is opened)
    'in storage': (lambda home, kind: moved(f'storage/{kind}'), None),
    'in storage, the long way': (lambda home, kind: moved(f'storage/../storage/./{kind}'), None),
    'absolute, in storage': (lambda home, kind: moved(str(home/'storage'/kind)), None),
    'a link into storage': (lambda home, kind: moved(f'outside-{kind}'), None),
    'up and out': (lambda home, kind: moved('storage/../../x'), 'outside'),
    'absolute': (lambda home, kind: moved('/etc'), 'outside'),
    'beside storage': (lambda home, kind: moved('received'), 'outside'),
    'a link out of storage': (lambda home, kind: moved(f'storage/link-{kind}'), 'outside'),
    'a home folder': (lambda home, kind: moved('~/x'), 'outside'),
    'nowhere': (lambda home, kind: moved('storage/nowhere'), 'which is no folder'),
    'a number': (lambda home, kind: moved(5), 'does not say on which weights'),
    'a NUL': (lambda home, kind: moved('storage/\0'), 'does not say on which weights'),
    'no hashes': (lambda home, kind: lambda r: r | {'sha256': {}}, 'does not say on which weights'),
    'hashes of another form': (lambda home, kind: lambda r: r | {'sha256': [1]},
                               'does not say on which weights'),
    'no reference': (lambda home, kind: lambda r: {}, 'does not say on which weights'),
    'another file': (lambda home, kind: lambda r: {'path': f'storage/{kind}', 'sha256': {'x': '0'}},
                     'is not what'),
    'another hash': (lambda home, kind: lambda r: {'path': f'storage/{kind}',
                                                   'sha256': dict.fromkeys(r['sha256'], '0')}, 'is not what')}


@pytest.mark.parametrize('kind', KEYS)
def test_a_base_is_followed_by_one_rule(kind, project, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, 'project_root', lambda: project)
    source, told = project/'received'/kind, {}
    for name, (change, message) in REFERENCES.items():
        folder = tmp_path/name
        folder.mkdir()
        for file in source.iterdir(): (folder/file.name).write_bytes(file.read_bytes())
        if kind == 'critic' and name == 'no reference': continue # then its own weights are wanted whole
        refer(kind, folder, change(project, kind))
        try: open_received(kind, folder)
        except InputError as e: told[name] = str(e)
        assert (message is None) == (name not in told), (name, told.get(name))
        if message: assert message in told[name] and '\n' not in told[name], (name, told[name])
        if message in ('outside', 'which is no folder'):
            assert told[name].endswith(f'give {KEYS[kind]} to say where they are')
        if name == 'absolute': open_received(kind, folder, project/'storage'/kind)


def checkpoint(run, name='step-000001'):
    "A whole checkpoint folder."
    return write_folder(run/name, lambda part: (part/'wmtp.json').write_text('{"what": "critic", "step": 1}'))


@pytest.mark.parametrize('best', ['../../other/step-000001', '/etc', '..', 'step-000009', ['x'], 7, None])
def test_a_name_of_the_best_checkpoint_leads_nowhere_else(best, tmp_path):
    own, other = checkpoint(tmp_path/'run'), checkpoint(tmp_path/'other')
    names = {'best': best, 'last': own.name}
    (tmp_path/'run'/'checkpoints.json').write_text(json.dumps(names))
    assert read_names(tmp_path/'run') == {'best': None, 'last': own.name}
    assert find_checkpoint(tmp_path/'run', tmp_path, 'key') == own and other.exists()


@pytest.mark.parametrize('name', ['../other', '/etc/hostname', 'a/../../x', ''])
def test_a_manifest_names_only_what_is_in_the_folder(name, tmp_path):
    folder = checkpoint(tmp_path/'run')
    manifest = json.loads((folder/'manifest.json').read_text())
    manifest['sha256'][name] = '0' * 64
    (folder/'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(InputError, match='is damaged') as error: verify_checkpoint(folder)
    assert '\n' not in str(error.value)


def test_links_in_a_received_checkpoint_are_refused(tmp_path):
    folder = checkpoint(tmp_path/'run')
    os.symlink('/etc/hostname', folder/'model.safetensors')
    with pytest.raises(InputError, match='model.safetensors is a link'): verify_checkpoint(folder)
    os.symlink(folder, tmp_path/'run'/'step-000002')
    (tmp_path/'run'/'checkpoints.json').write_text('{"best": "step-000002"}')
    with pytest.raises(InputError, match='step-000002 is a link'):
        find_checkpoint(tmp_path/'run', tmp_path, 'key')


@pytest.mark.parametrize('shard', ['../other.safetensors', '/etc/hostname', '..', '.', 'sub/x.bin', ''])
def test_shards_lie_beside_their_index(shard, tmp_path):
    (tmp_path/'other.safetensors').write_bytes(b'')
    (tmp_path/'m').mkdir()
    (tmp_path/'m'/'model.safetensors.index.json').write_text(json.dumps({'weight_map': {'w': shard}}))
    with pytest.raises(InputError, match='which is not in that folder'): weight_files(tmp_path/'m')
