"""What can be wrong with a route or with the configuration that holds it."""


class RoutingError(Exception):
    """Base of this package's errors; its text is meant for an operator."""


class RouteSyntaxError(RoutingError):
    """The text is no route; the whole configuration is refused with status 400."""


class RouteCompileError(RoutingError):
    """Well-formed, but the types do not fit or a name is unknown; it surfaces when routes are applied."""


class ConfigError(RoutingError):
    """The `$edgeHub` desired properties are refused; the previous ones stay in effect."""
