from tiny import server  # noqa: F401  a fixture
