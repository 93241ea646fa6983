"""What a run reports while it trains: metrics log, alarms, progress, trackers."""
