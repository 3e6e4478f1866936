"""Named items of a folder in any layout: a file each, one tar archive, or shards."""
