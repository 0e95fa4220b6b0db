"""anomaly_router: lets out what the policy allows, groups anomalies into episodes, aggregates the rest into windows."""
