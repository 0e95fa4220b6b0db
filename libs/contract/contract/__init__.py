"""What travels between Edgeweir's parts, and nothing else: messages, model bundle, batch layout.

Pure data and pure functions. No file, socket or clock is touched here. `docs/contract.md` is the glossary.
"""
