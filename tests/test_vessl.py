"""The run files of scripts/vessl, read as VESSL, the shell, torchrun and the program will read them."""
import re
import shlex
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
import yaml
from torch.distributed.run import get_args_parser

from wmtp.cli import make_parser
from wmtp.config.load import load_config, to_yaml

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT/'scripts'/'vessl').glob('*.yaml'))
LOCK = (ROOT/'requirements.lock').read_text()
VOLUME = re.compile(r'volume://[\w-]+/[\w.-]+')


def either(*kinds): return lambda x: any(not faults(x, kind) for kind in kinds)


def matches(pattern): return lambda x: isinstance(x, str) and re.fullmatch(pattern, x) is not None


# What VESSL documents of a run (docs.vessl.ai/reference/yaml/run-yaml; git and secrets as in its examples). A
# map has the keys before '?' and may have those after it; {KEY: kind} with a pattern for any such keys.
PLACE = re.compile('(/[\\w.-]+)+/?')
GIT = {'git': {'url': matches('https://.+'), 'ref': str, '?': {'credential_name': str}}}
RUN = {'name': matches('[a-z0-9-]+'), 'resources': {'preset': str, '?': {'cluster': str, 'node_names': list}},
       'image': either(str, {'url': str, '?': {'credential_name': str}}),
       'run': [{'command': str, '?': {'workdir': matches('/.+')}}],
       '?': {'description': str, 'tags': [str], 'import': {PLACE: either(matches(VOLUME), GIT)},
             'mount': {PLACE: matches('(nfs|hostpath|volume)://.+')}, 'export': {PLACE: matches(VOLUME)},
             'env': {re.compile('[A-Z_]+'): either(str, {'secret': matches('[A-Z_]+')})}, 'ports': list,
             'interactive': dict, 'service_account_name': str, 'termination_protection': bool}}


def faults(x, kind, at=''):
    "Where a file is not what VESSL documents."
    shape = kind if isinstance(kind, type) else type(kind) if isinstance(kind, (list, dict)) else object
    if not isinstance(x, shape): return [f'{at} is {x!r}']
    if shape is object: return [] if kind(x) else [f'{at} is {x!r}']
    if isinstance(kind, list): return [f for item in x for f in faults(item, kind[0], f'{at}[]')]
    if shape is kind: return []
    needed = {key: want for key, want in kind.items() if isinstance(key, str) and key != '?'}
    known, found = needed | kind.get('?', {}), [f'{at}.{key} is missing' for key in needed if key not in x]
    for key, value in x.items():
        by_pattern = [kind[p] for p in kind if isinstance(p, re.Pattern) and p.fullmatch(key)]
        want = known.get(key, *by_pattern)
        found += faults(value, want, f'{at}.{key}') if want else [f'{at}.{key} is not documented']
    return found


def places(spec): return [PurePosixPath(path) for key in ('import', 'mount') for path in spec.get(key, {})]


def nested(spec): return [(a, b) for a in places(spec) for b in places(spec) if a in b.parents]


def said(spec):
    "The command lines that the shell makes of a run's command; nothing is started."
    stand_ins = ''.join(f'{name}() {{ printf "%s\\0" {name} "$@"; echo; }}\n'
                        for name in ('cp', 'pip', 'torchrun'))
    done = subprocess.run(['bash', '-c', stand_ins + spec['run'][0]['command']], check=True,
                          capture_output=True, text=True)
    return [line.rstrip('\0').split('\0') for line in done.stdout.splitlines()]


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def spec(request): return yaml.safe_load(request.param.read_text())


def test_every_key_is_one_that_vessl_documents(spec):
    assert not faults(spec, RUN, spec['name']) and not nested(spec)


@pytest.mark.parametrize('change', [
    lambda s: s['env'].update(MLFLOW_TRACKING_URI={'source': 'wmtp-mlflow-tracking-uri'}),
    lambda s: s['env'].update(N=4), lambda s: s.update(volumes={}), lambda s: s.pop('image'),
    lambda s: s['import']['/source/']['git'].update(branch='main'), lambda s: s['run'][0].update(cwd='/code'),
    lambda s: s['resources'].update(gpus=4), lambda s: s['export'].update({'/x/': 'vessl-storage/x'}),
    lambda s: s['import'].update({'/code/': s['import'].pop('/source/')})])
def test_one_that_it_does_not_document_is_found(change):
    spec = yaml.safe_load(FILES[0].read_text())
    change(spec)
    assert len(faults(spec, RUN)) + bool(nested(spec)) == 1, (faults(spec, RUN), nested(spec))


def test_python_and_torch_are_those_of_the_lock_file(spec):
    python = re.search(r'\(Python ([\d.]+)', LOCK)[1]
    assert spec['image'].startswith(f'python:{python}-') and re.search(r'^torch==\d', LOCK, re.M)
    assert spec['env']['PYTORCH_ALLOC_CONF'] == 'expandable_segments:True'
    assert said(spec)[:3] == [['cp', '-a', '/source/.', '.'], ['pip', 'install', '-r', 'requirements.lock'],
                              ['pip', 'install', '--no-deps', '-e', '.']]


def test_torchrun_and_the_program_understand_the_command(spec):
    check, start = [get_args_parser().parse_args(words[1:]) for words in said(spec)[3:]]
    run = start.training_script.removeprefix('wmtp_')
    assert start.no_python and start.nproc_per_node == 'gpu' # one process on one, four on four
    assert check.training_script == start.training_script
    assert check.training_script_args == [*start.training_script_args[:-2], '--check']
    args = make_parser(run).parse_args(start.training_script_args)
    assert args.resume == 'auto'
    cfg = load_config(args.config, args.set, run=run)
    # sharding is for full fine-tuning
    if run != 'evaluate': assert (cfg.runtime.shard == 'full') == spec['name'].endswith('-full')
    if cfg.runtime.shard == 'full': assert not cfg.models.policy.lora.enabled
    # all that the configuration names is brought, and what is made is taken away
    brought, taken = places(spec), [PurePosixPath(path) for path in spec['export']]
    named = re.findall(r': (storage/\S+)', to_yaml(cfg))
    assert named
    for path in (PurePosixPath('/code')/name for name in named):
        assert any(path.is_relative_to(place) for place in brought), path
    assert set(taken) <= set(brought)
    if run != 'evaluate': assert taken == [PurePosixPath('/code')/cfg.checkpoint.save_dir]


def test_the_lines_for_slurm_are_ones_that_torchrun_understands():
    line = re.search(r'    srun (.+\\\n)+.+', (ROOT/'CONTRIBUTING.md').read_text())[0]
    words = shlex.split(line.replace('\\\n', ' '))
    args = get_args_parser().parse_args(words[words.index('torchrun') + 1:])
    assert (args.nnodes, args.nproc_per_node, args.no_python) == ('2', 'gpu', True)
    assert make_parser('baseline').parse_args(args.training_script_args).resume == 'auto'


def test_a_run_file_as_a_job_of_vessl_cloud(spec):
    file = ROOT/'scripts'/'vessl'/'job.py'
    done = subprocess.run([sys.executable, file, spec['name'].removeprefix('wmtp-').replace('-', '_'),
                           '--resource-spec', 'a100-sxm-1', '--volume', 'vol'],
                          check=True, capture_output=True, text=True)
    words = shlex.split(done.stdout)
    options = list(zip(words[3::2], words[4::2]))
    # as VESSL's cookbook and documentation write them
    assert words[:3] == ['vesslctl', 'job', 'create'] and {name for name, _ in options} == {
        '--name', '--resource-spec', '--image', '--cluster-volume', '--secret', '--env', '--cmd'}
    command = dict(options)['--cmd']
    assert command.endswith(spec['run'][0]['command']) and command.startswith('git clone https://')
    assert dict(options)['--cluster-volume'] == 'vol:/code/storage'
    assert [value for name, value in options if name == '--secret'] == [
        'MLFLOW_TRACKING_URI', 'MLFLOW_TRACKING_USERNAME', 'MLFLOW_TRACKING_PASSWORD']
    # a job takes the variable's name from the secret
    assert all(name == value['secret'] for name, value in spec['env'].items() if isinstance(value, dict))
