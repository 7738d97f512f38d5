"""The order in which files of tests are begun, and the fixture that several of them share."""
from tiny import server  # noqa: F401  a fixture

LONGEST = ('test_critic', 'test_policies', 'test_evaluate', 'test_sandbox', 'test_prepare',
           'test_endings', 'test_doors', 'test_microcode', 'test_distributed', 'test_models', 'test_config',
           'test_mlflow_run', 'test_secrets', 'test_resume', 'test_generate', 'test_validate')


def pytest_collection_modifyitems(items):
    "The longest files first, so that no core is left alone with one of them at the end."
    rank = {name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))
