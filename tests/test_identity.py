"""Every key of every run changed on the way: refused in one line, or the same result to the last byte."""
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from commands import bits
from omegaconf import OmegaConf

from wmtp.config.load import load_config, project_root
from wmtp.config.runs import SCHEMAS
from wmtp.config.schema import checked_value, field_type, leaf_fields
from wmtp.core import InputError, resolve_device, resolve_dtype
from wmtp.pipelines.baseline import run_baseline
from wmtp.pipelines.critic import run_critic
from wmtp.pipelines.evaluate import evaluation_identity, open_benchmark, run_evaluate, sandbox_limits
from wmtp.pipelines.identity import MAY_CHANGE, check_same_run
from wmtp.pipelines.rho1 import run_rho1
from wmtp.pipelines.setup import absolute_paths, configured_dtype, prepare_run, tiny_settings
from wmtp.pipelines.verifiable import run_verifiable
from wmtp.runtime.checkpoint import write_manifest

RUN = {'critic': run_critic, 'baseline': run_baseline, 'verifiable': run_verifiable, 'rho1': run_rho1,
       'evaluate': run_evaluate}
CPU = ('runtime.device=cpu', 'runtime.dtype=float32')


def fits(value, f):
    try: return checked_value(value, f) is not None or value is None
    except ValueError: return False


def other_values(f, value):
    "Other valid values of a setting, from its type, choices and limits alone."
    kind, nullable = field_type(f)
    words = ['1', 'cuda', 'elsewhere']
    candidates = {bool: [True, False], int: [1, 2, 64], float: [.25, .5, 2., -1.], str: words}[kind]
    candidates = [*f.metadata.get('choices', candidates), *[None] * nullable]
    return [x for x in candidates if x != value and fits(x, f)]


def changed(cfg, key, value):
    cfg = OmegaConf.create(OmegaConf.to_container(cfg))
    OmegaConf.update(cfg, key, value)
    return cfg


def training_identity(run):
    "What gives the identity of a training run for a configuration and the contents of its paths."
    setup = prepare_run(load_config(None, tiny_settings(run, 'unused', *CPU, *NEEDED.get(run, ())), run))
    contents = {key: '1' * 64 for key, f in leaf_fields(SCHEMAS[run]).items() if f.metadata.get('path')}
    def identity(cfg, contents):
        return replace(setup, cfg=cfg, paths=absolute_paths(cfg), contents=contents,
                       device=resolve_device(cfg.runtime.device), dtype=configured_dtype(cfg)).identity
    return setup.cfg, contents, identity


def evaluation_parts(run='evaluate'):
    "The same for an evaluation."
    cfg = load_config(None, tiny_settings(run, 'unused', *CPU, 'models.policy.checkpoint_path=tests'), run)
    contents = {key: '1' * 64 for key, f in leaf_fields(SCHEMAS[run]).items()
                if f.metadata.get('path') and not key.startswith('benchmark')}
    benchmarks = {}
    def identity(cfg, contents):
        asked = cfg.benchmark.name, cfg.benchmark.max_tasks
        if asked not in benchmarks: benchmarks[asked] = open_benchmark(cfg, {'benchmark.path': None})
        benchmark, device = benchmarks[asked], resolve_device(cfg.runtime.device)
        network = SimpleNamespace(dtype=resolve_dtype(cfg.runtime.dtype, device))
        sandbox = SimpleNamespace(rung='jail', memory=cfg.sandbox.memory_mib << 20)
        evaluated = SimpleNamespace(contents=contents, network=network)
        limits = sandbox_limits(cfg, benchmark, sandbox)
        return evaluation_identity(cfg, absolute_paths(cfg), device, evaluated, {}, benchmark, limits)
    return cfg, contents, identity


NEEDED = {'verifiable': ['models.value_model.checkpoint_path=tests'], 'rho1': ['models.reference.path=tests']}


@pytest.mark.parametrize('run', SCHEMAS)
def test_every_key_is_refused_or_may_change(run):
    "A new key is in the schema, and so in this loop; unless it stands in MAY_CHANGE it is protected."
    cfg, contents, identity = (evaluation_parts if run == 'evaluate' else training_identity)(run)
    saved = json.loads(json.dumps(identity(cfg, contents)))
    def refusal(cfg, contents=contents):
        try: check_same_run(saved, identity(cfg, contents), 'it')
        except InputError as e: return str(e)
    assert refusal(cfg) is None
    for key, f in leaf_fields(SCHEMAS[run]).items():
        kind, value = f.metadata.get('path'), OmegaConf.select(cfg, key)
        refusals = (refusal(changed(cfg, key, other)) for other in other_values(f, value))
        said = next((words for words in refusals if words), None) # auto may come to what was there
        if kind or key in MAY_CHANGE: assert said is None, (key, said)
        elif key != 'run': assert said and key in said and '\n' not in said, (key, value)
        if key in contents and kind != 'new':
            said = refusal(cfg, contents | {key: '2' * 64})
            assert f"{key} sha256 {'1' * 12} -> sha256 {'2' * 12}" in said and '\n' not in said


def tiny(run, folder, *changes):
    own = ['training.eval_max_batches=1', 'report.n_examples=0', 'checkpoint.save_every_steps=2',
           'checkpoint.keep=9']
    return load_config(None, tiny_settings(run, folder, *CPU, *own, *changes), run)


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    "A critic, a policy to start from or compare with, data, tokenizer: copies that may be replaced."
    home, microcode = tmp_path_factory.mktemp('given'), project_root()/'storage/datasets/microcode'
    shutil.copy(microcode/'test.jsonl.gz', home)
    shutil.copy(microcode/'tokenizer.model', home)
    run_critic(tiny('critic', home/'critic', 'training.max_steps=2'))
    done = run_baseline(tiny('baseline', home/'start', 'training.max_steps=2'))
    shutil.copytree(done.summary['checkpoint']['best'], home/'policy')
    (home/'policy'/'manifest.json').unlink()
    shutil.copytree(home/'policy', home/'reference')
    return home


def settings_of(run, home):
    own = [f'data.train={home}/test.jsonl.gz', f'tokenizer.path={home}/tokenizer.model']
    start = [f'models.policy.path={home}/policy', 'data.max_length=1024']
    lora = [*start, 'models.policy.lora.enabled=true', 'models.policy.lora.rank=2']
    return own + {'critic': [], 'baseline': lora,
                  'verifiable': [f'models.value_model.checkpoint_path={home}/critic'],
                  'rho1': [f'models.reference.path={home}/reference']}[run]


EMPTY_FIELD = b'\x9a\x06\x00' # of protobuf; a reader passes over it


def bend(folder):
    "Change one weight of a saved model in place, manifest included: a whole model, and another one."
    file = next(folder.rglob('model.safetensors'))
    with file.open('r+b') as f:
        f.seek(-2, 2)
        last = f.read(1)[0]
        f.seek(-2, 2)
        f.write(bytes([last ^ 1]))
    if (file.parent/'manifest.json').exists(): write_manifest(file.parent)


REPLACED = {'critic': [('tokenizer.path', None)], 'baseline': [('models.policy.path', 'policy')],
            'verifiable': [('models.value_model.checkpoint_path', 'critic')],
            'rho1': [('models.reference.path', 'reference')]}
FREE = ['training.max_bad_steps=9', 'checkpoint.save_every_steps=3', 'checkpoint.keep=1',
        'report.n_examples=1',
        'runtime.log_every_steps=1', 'mlflow.experiment=other', 'mlflow.tracking_uri=http://127.0.0.1:9',
        'mlflow.allow_insecure=true']


@pytest.mark.parametrize('run', REPLACED)
def test_moved_inputs_go_on_to_the_same_bytes_and_replaced_ones_are_refused(run, given, tmp_path):
    "From step 2 with all that may change changed, every input elsewhere: the same bytes. In place: one line."
    RUN[run](tiny(run, tmp_path/'whole', *settings_of(run, given)))
    shutil.copytree(tmp_path/'whole', tmp_path/'run')
    moved = shutil.copytree(given, tmp_path/'moved')
    free = [f'data.index_dir={tmp_path}/index', *FREE, *settings_of(run, moved)]
    RUN[run](tiny(run, tmp_path/'run', *free), resume=str(tmp_path/'run'/'step-000002'))
    assert bits(tmp_path/'run') == bits(tmp_path/'whole')
    for key, name in REPLACED[run]:
        if name: bend(moved/name)
        else: (moved/'tokenizer.model').write_bytes((moved/'tokenizer.model').read_bytes() + EMPTY_FIELD)
        with pytest.raises(InputError) as refused:
            RUN[run](tiny(run, tmp_path/'run', *free), resume='auto')
        text = str(refused.value)
        assert f'cannot resume: {key} sha256 ' in text and '\n' not in text and text.count(' -> ') == 1
