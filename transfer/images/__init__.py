"""From an archive or a folder to one packed file of a data set's images."""
