"""The one place that states the version; kept free of imports so that `moonxd version` stays instant."""

VERSION = "0.1.0"
