"""Recipes: datasets and photographs, from files to results."""
