"""The multi-token-prediction transformer behind the names of Meta's release; what is known from where stands in PROVENANCE.md."""
