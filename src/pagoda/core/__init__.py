"""The ground: settings, errors, types, ports, storage and runs. Nothing here knows a storey."""
