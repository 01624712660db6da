"""moonxd: keeps every wallet's portfolio fresh, and proves it. See docs/architecture.md for the rooms of the house."""
