"""Recipes: whole datasets and photographs, from files to results."""
