"""One file per subcommand: what the options mean and what is shown. The work is done elsewhere."""
