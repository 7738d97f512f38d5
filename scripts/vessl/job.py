"""Print a run file as a job of VESSL Cloud, the newer platform; nothing is sent.

    python scripts/vessl/job.py baseline --resource-spec SPEC --volume VOLUME

The volume is one of cluster storage that holds what storage/README.md describes: datasets/, models/,
checkpoints/. It keeps what a job writes, so the same job goes on when it is created again.
"""
import argparse
import shlex
from pathlib import Path

import yaml


def job(
    spec:dict, # content of a run file
    resource_spec:str, # `vesslctl resource-spec list`
    volume:str, # `vesslctl volume list`
) -> list: # the words of a command
    "The command that creates a run's job."
    git, step = spec['import']['/source/']['git'], spec['run'][0]
    clone = f"git clone {git['url']} /source && git -C /source checkout {git['ref']} && cd {step['workdir']}"
    env = [words for name, value in spec['env'].items()
           for words in (['--secret', value['secret']] if isinstance(value, dict)
                         else ['--env', f'{name}={value}'])]
    return ['vesslctl', 'job', 'create', '--name', spec['name'], '--resource-spec', resource_spec,
            '--image', spec['image'], '--cluster-volume', f"{volume}:{step['workdir']}/storage", *env,
            '--cmd', f"{clone}\n{step['command']}"]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('run', choices=sorted(file.stem for file in Path(__file__).parent.glob('*.yaml')))
    p.add_argument('--resource-spec', required=True, help='`vesslctl resource-spec list` shows them')
    p.add_argument('--volume', required=True, help='a volume of cluster storage')
    args = p.parse_args()
    spec = yaml.safe_load((Path(__file__).parent/f'{args.run}.yaml').read_text(encoding='utf-8'))
    print(shlex.join(job(spec, args.resource_spec, args.volume)))


if __name__ == '__main__': main()
