"""`python -m anomaly_router`: the module, as edgeAgent starts it."""

from anomaly_router.router import AnomalyRouter
from edge_module import run

if __name__ == "__main__":
    run(AnomalyRouter())
