"""Clients that only exist for asyncio: MongoDB and Kafka, on one private loop in one thread."""
