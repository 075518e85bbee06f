"""All processes, for real: started, killed and stopped as an operator would."""
