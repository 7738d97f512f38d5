"""In a checkout the vendored code lies beside the package, in vendor/; an installed package has it here."""
from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2]/'vendor')]
