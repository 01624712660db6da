"""Long-running actors, one per file. Each is a supervised child: `run(ready)` works until cancelled."""
