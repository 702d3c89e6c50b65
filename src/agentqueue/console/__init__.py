"""The console: a REST API and a web page on the queues of one server. Needs `agentqueue[console]`.

app = create_app(Client(url), token="...")        # any ASGI server runs it
python -m agentqueue.console                      # or `agentqueue console`; settings come from the environment
"""
