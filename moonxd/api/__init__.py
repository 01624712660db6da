"""The contract of the control plane: its types and a client. Imports neither trio nor adapters."""
