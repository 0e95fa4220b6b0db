"""What every test can ask for, and one profile for all property tests: no deadlines, because machines are shared."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.fixtures"]

settings.register_profile("edgeweir", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeweir")
