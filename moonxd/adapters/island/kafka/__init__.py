"""Kafka through aiokafka: a producer that knows when it is broken, a group's consumer, a bounded reader of a topic."""
