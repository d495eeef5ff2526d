"""The documented names, the clauses of the contract, and the rules of the house."""
