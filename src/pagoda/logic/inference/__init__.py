"""The one door to the models: every call of every storey above goes through here, in process or over loopback."""
