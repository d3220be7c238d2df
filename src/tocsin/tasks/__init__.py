"""LightningModules, one per problem."""
