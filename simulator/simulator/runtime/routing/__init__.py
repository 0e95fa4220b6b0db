"""edgeHub's route language: text to tree (`parser`), tree to typed closures (`conditions`), routes to deliveries.

`hub_config` reads the `$edgeHub` desired properties; `routes` evaluates them for a message. Behaviour follows
Routing.Core of edgeHub, including its quirks; nothing here does I/O.
"""
