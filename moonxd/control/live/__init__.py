"""The live feed for browsers, WebSocket /v1/ws. server.py is the door, hub.py the rooms, tail.py brings events."""
