"""Many runs: rules side by side, tables and plots, what a step costs."""
