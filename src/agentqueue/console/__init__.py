"""The console: a REST API and a web page for the queues of one server. It needs `agentqueue[console]`.

app = create_app(Client(url), token="...")        # Any ASGI server can run it.
python -m agentqueue.console                      # Same as `agentqueue console`. Settings come from the environment.
"""
