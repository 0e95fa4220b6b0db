"""The `edgeweir` command."""
