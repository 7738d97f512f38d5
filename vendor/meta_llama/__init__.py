"""The multi-token-prediction transformer behind the names of Meta's release; its sources: PROVENANCE.md."""
