"""Pictures to look at; each is whole or not there."""
